/*
 * fastq: small language models on the processor that is already there.
 *
 * Text     is UTF-8 and ends with a zero byte; where text comes out its length is told too, since a model may write zeros.
 * Results  every function that can fail returns a fastq_status. The fastq_error, which may be NULL, tells the same code and
 *          a message that names the parameter, key or tensor, what was expected and what was found. After an error all
 *          other results are NULL or 0; the only exception is the completion of a cancelled generation.
 * Structs  that go in are filled by their fastq_..._init first. They carry their size, so that a program and a library of
 *          different versions understand each other.
 * Memory   what goes in belongs to the caller and is not used after the call. Handles (fastq_model, fastq_session,
 *          fastq_cancel) end with their own ..._free, all else that comes out with fastq_free. NULL is fine for each.
 * Threads  all functions may be called from any threads at the same time, with the same handles, but for three: a handle is
 *          freed when no call uses it any more, and a session serves one generation at a time. Calls on one model take turns
 *          at its threads, token by token.
 * Safety   whatever a model file, a text or an option holds, a call ends with a status: no signal, no abort, no exception.
 *          What no library can check is that a pointer points to as much memory as its type and count say. And a mapped file
 *          that somebody truncates while it is in use is a SIGBUS; FASTQ_NO_MMAP reads it into memory instead.
 */

#ifndef FASTQ_H
#define FASTQ_H

/* Generated from rust/c/src by cbindgen. Change it there: FASTQ_UPDATE=1 cargo test -p fastq-c */

#include <stddef.h>
#include <stdint.h>

/**
 * Counts the versions of this interface. It grows when something is added; what is there stays as it is.
 */
#define FASTQ_API_VERSION 1

/**
 * Bytes of the message of an error, the zero at its end included. A longer message is cut.
 */
#define FASTQ_MESSAGE_SIZE 1024

/**
 * A flag of load options: read the file into memory instead of mapping it. Takes longer and more memory, but whatever happens to
 * the file then does not matter.
 */
#define FASTQ_NO_MMAP 1

/**
 * The seed of a request that asks for a new one each time.
 */
#define FASTQ_RANDOM_SEED UINT64_MAX

/**
 * A flag of a request: go on after the model's end token.
 */
#define FASTQ_IGNORE_EOS 1

/**
 * A flag of a request: show control tokens in the text.
 */
#define FASTQ_SHOW_SPECIAL 2

/**
 * What became of a call. Later versions may add codes: take one that is not here as an error.
 */
typedef enum fastq_status {
    /**
     * Done.
     */
    FASTQ_STATUS_OK = 0,
    /**
     * A parameter has a wrong value.
     */
    FASTQ_STATUS_INVALID_ARGUMENT = 1,
    /**
     * No file at the path.
     */
    FASTQ_STATUS_NOT_FOUND = 2,
    /**
     * The system refused to open or read the file.
     */
    FASTQ_STATUS_IO = 3,
    /**
     * The model file is no GGUF file, or is malformed, truncated, changed or damaged.
     */
    FASTQ_STATUS_FORMAT = 4,
    /**
     * A valid model file that this version cannot run.
     */
    FASTQ_STATUS_UNSUPPORTED = 5,
    /**
     * The vocabulary cannot express a text.
     */
    FASTQ_STATUS_TOKENIZER = 6,
    /**
     * The chat template is missing or invalid, or refuses the messages.
     */
    FASTQ_STATUS_TEMPLATE = 7,
    /**
     * The prompt is longer than the context.
     */
    FASTQ_STATUS_CONTEXT = 8,
    /**
     * Not enough memory for the model, its context or a result.
     */
    FASTQ_STATUS_MEMORY = 9,
    /**
     * The callback or a fastq_cancel ended the call.
     */
    FASTQ_STATUS_CANCELLED = 10,
    /**
     * The session is in use by another generation.
     */
    FASTQ_STATUS_BUSY = 11,
    /**
     * A defect of fastq itself; please report it.
     */
    FASTQ_STATUS_INTERNAL = 12,
} fastq_status;

/**
 * Why an answer ended.
 */
typedef enum fastq_finish {
    /**
     * The model came to its end, or a stop text came up.
     */
    FASTQ_FINISH_STOP = 0,
    /**
     * max_tokens or the context was reached.
     */
    FASTQ_FINISH_LENGTH = 1,
    /**
     * The callback or a fastq_cancel ended it.
     */
    FASTQ_FINISH_CANCELLED = 2,
} fastq_finish;

/**
 * A flag that ends the calls it was given to. Any number of calls can share one.
 */
typedef struct fastq_cancel fastq_cancel;

/**
 * A loaded model.
 */
typedef struct fastq_model fastq_model;

/**
 * The memory of a conversation: a request that has it computes only what its prompt does not have in common with the prompt and the
 * answer before. The texts are the same as without. Keeps pages of the model's KV cache as long as it lives.
 */
typedef struct fastq_session fastq_session;

/**
 * How to load a model. Fill it with fastq_load_options_init, then change what should be different.
 */
typedef struct fastq_load_options {
    /**
     * Bytes of this struct; set by fastq_load_options_init.
     */
    size_t size;
    /**
     * Positions per sequence, prompt and answer together. 0, the default: what the model was trained for, or less if that
     * does not fit the memory.
     */
    size_t context;
    /**
     * Threads, the calling one included. 0, the default: what the machine grants.
     */
    size_t threads;
    /**
     * What the KV cache stores: "f16", "f32" in twice the memory, or "q8_0" in about half. NULL, the default, is "f16".
     */
    const char *kv;
    /**
     * Ends the loading when it is set; NULL, the default, for none.
     */
    const struct fastq_cancel *cancel;
    /**
     * The most tokens of a prompt that are computed at once, 1 to 65536; default 512. Less takes less memory.
     */
    uint32_t prefill_chunk;
    /**
     * FASTQ_NO_MMAP or, the default, 0.
     */
    uint32_t flags;
} fastq_load_options;

/**
 * What went wrong. A variable of the caller, which needs neither to be filled before nor to be freed after.
 */
typedef struct fastq_error {
    /**
     * What the function returned.
     */
    enum fastq_status code;
    /**
     * What went wrong, for people; empty when nothing did.
     */
    char message[FASTQ_MESSAGE_SIZE];
} fastq_error;

/**
 * Facts about a model. Belongs to the model and lives as long.
 */
typedef struct fastq_info {
    /**
     * Bytes of this struct, as the library knows it: fields that end later are not there.
     */
    size_t size;
    /**
     * What kind of model it is, such as "llama".
     */
    const char *architecture;
    /**
     * What the file calls itself, or else the name of the file.
     */
    const char *name;
    /**
     * The kind of the tokenizer, such as "gpt2/smollm".
     */
    const char *tokenizer;
    /**
     * What the KV cache stores: "f32", "f16" or "q8_0".
     */
    const char *kv;
    /**
     * The set of instructions in use, such as "avx2".
     */
    const char *level;
    /**
     * Number of weights.
     */
    uint64_t parameters;
    /**
     * Bytes of the file, or of all its parts.
     */
    uint64_t file_bytes;
    /**
     * Bits per weight of all tensors together.
     */
    double bits_per_weight;
    /**
     * Seconds that loading took.
     */
    double load_seconds;
    /**
     * Positions per sequence, prompt and answer together.
     */
    size_t context;
    /**
     * Positions that the model was trained for.
     */
    size_t trained_context;
    /**
     * Number of tokens of the vocabulary; ids are below it.
     */
    size_t vocabulary;
    /**
     * Number of layers.
     */
    size_t layers;
    /**
     * Length of the hidden state.
     */
    size_t width;
    /**
     * Threads, the calling one included.
     */
    size_t threads;
    /**
     * 1 when the file has a chat template, which messages need; otherwise 0.
     */
    int has_chat_template;
} fastq_info;

/**
 * One message of a conversation.
 */
typedef struct fastq_message {
    /**
     * Who says it: "system", "user", "assistant", or what else the chat template of the model knows.
     */
    const char *role;
    /**
     * What is said.
     */
    const char *content;
} fastq_message;

/**
 * A number that is added to the logit of a token.
 */
typedef struct fastq_logit_bias {
    /**
     * The token.
     */
    uint32_t token;
    /**
     * What is added; negative infinity forbids the token.
     */
    float bias;
} fastq_logit_bias;

/**
 * What to continue, and how. Fill it with fastq_request_init, then set one of `prompt`, `messages` and `tokens`, and change what
 * should be different.
 */
typedef struct fastq_request {
    /**
     * Bytes of this struct; set by fastq_request_init.
     */
    size_t size;
    /**
     * Text to continue as it is. Control tokens that are spelled in it count as such.
     */
    const char *prompt;
    /**
     * A conversation to answer, written down by the chat template of the model.
     */
    const struct fastq_message *messages;
    /**
     * Number of messages.
     */
    size_t message_count;
    /**
     * Tokens to continue as they are.
     */
    const uint32_t *tokens;
    /**
     * Number of tokens.
     */
    size_t token_count;
    /**
     * What is kept from the last answer for this one; NULL, the default, for nothing.
     */
    struct fastq_session *session;
    /**
     * Ends the generation when it is set; NULL, the default, for none.
     */
    const struct fastq_cancel *cancel;
    /**
     * Texts that end the answer. They and what follows are not part of it.
     */
    const char *const *stop;
    /**
     * Number of such texts.
     */
    size_t stop_count;
    /**
     * The most tokens to generate; default 256. SIZE_MAX: until the model ends or the context is full.
     */
    size_t max_tokens;
    /**
     * Numbers added to the logits of single tokens.
     */
    const struct fastq_logit_bias *logit_bias;
    /**
     * Number of them.
     */
    size_t logit_bias_count;
    /**
     * Chooses among this many most likely tokens; default 40, 0 is off.
     */
    size_t top_k;
    /**
     * How many of the last tokens the penalties look at; default 64, 0 is off, SIZE_MAX is all.
     */
    size_t repeat_last_n;
    /**
     * What the random numbers come from; the same seed gives the same answer. FASTQ_RANDOM_SEED, the default, takes a new
     * one, which the completion tells.
     */
    uint64_t seed;
    /**
     * Randomness; default 0.8, 0 always takes the most likely token.
     */
    float temperature;
    /**
     * Chooses among the most likely tokens that reach this probability together; default 0.95, 1 is off.
     */
    float top_p;
    /**
     * Drops tokens less likely than this times the most likely one; default 0.05, 0 is off.
     */
    float min_p;
    /**
     * Keeps the most typical tokens up to this probability; default 1, which is off.
     */
    float typical_p;
    /**
     * Divides the logits of recent tokens; default 1, which is off.
     */
    float repeat_penalty;
    /**
     * Subtracted from the logit of every recent token; default 0.
     */
    float presence_penalty;
    /**
     * Subtracted from the logit of a recent token for each time it occurred; default 0.
     */
    float frequency_penalty;
    /**
     * FASTQ_IGNORE_EOS, FASTQ_SHOW_SPECIAL, both (|) or, the default, 0.
     */
    uint32_t flags;
} fastq_request;

/**
 * Takes the answer piece by piece, on the thread that called fastq_generate. A piece has at least one character and no half
 * ones; `length` is its bytes without the zero at its end. It is gone when the callback returns. Not 0 ends the
 * generation.
 *
 * The callback may call every function but for the free of what the generation uses. It must return: no longjmp, no exception.
 */
typedef int (*fastq_callback)(const char *piece, size_t length, void *user_data);

/**
 * An answer. End it with fastq_free, which frees all that it points to.
 */
typedef struct fastq_completion {
    /**
     * Bytes of this struct, as the library knows it: fields that end later are not there.
     */
    size_t size;
    /**
     * The text: all pieces together. After a cancellation perhaps more, which was held back while it could have become a stop
     * text or a whole character.
     */
    const char *text;
    /**
     * Bytes of the text without the zero at its end.
     */
    size_t text_length;
    /**
     * The tokens. The end token is not among them; with a stop text, the tokens that it is made of are.
     */
    const uint32_t *tokens;
    /**
     * Number of tokens.
     */
    size_t token_count;
    /**
     * Tokens of the prompt.
     */
    size_t prompt_tokens;
    /**
     * Those of them that the session had kept.
     */
    size_t cached_tokens;
    /**
     * The seed that was used.
     */
    uint64_t seed;
    /**
     * Prompt tokens that were computed.
     */
    size_t prefill_tokens;
    /**
     * Tokens chosen after the first one.
     */
    size_t decode_tokens;
    /**
     * Seconds until the first token was chosen. prefill_tokens / prefill_seconds is the speed.
     */
    double prefill_seconds;
    /**
     * Seconds for the tokens after the first one. decode_tokens / decode_seconds is the speed.
     */
    double decode_seconds;
    /**
     * Why it ended.
     */
    enum fastq_finish finish_reason;
} fastq_completion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The FASTQ_API_VERSION of the library, which may be another one than that of the header. A program runs with every
 * library whose version is at least the one it was compiled with.
 */
uint32_t fastq_api_version(void);

/**
 * The version of fastq, such as "0.1.0". Belongs to the library.
 */
const char *fastq_version(void);

/**
 * Frees what a function gave out: a completion, tokens or text. NULL is fine.
 */
void fastq_free(void *memory);

/**
 * A new flag, not set. End it with fastq_cancel_free.
 */
struct fastq_cancel *fastq_cancel_new(void);

/**
 * Sets the flag: calls that have it end with FASTQ_STATUS_CANCELLED, normally within 100 ms, and those that are still to begin end
 * at once, until it is cleared. May be called from any thread and from a signal handler. NULL does nothing.
 */
void fastq_cancel_set(struct fastq_cancel *cancel);

/**
 * Clears the flag for the next calls. NULL does nothing.
 */
void fastq_cancel_clear(struct fastq_cancel *cancel);

/**
 * Frees the flag, which no call has any more. NULL does nothing.
 */
void fastq_cancel_free(struct fastq_cancel *cancel);

/**
 * Fills options with the defaults. `size` is sizeof(fastq_load_options).
 */
void fastq_load_options_init(struct fastq_load_options *options, size_t size);

/**
 * Loads a GGUF file, the first one if it has parts. All of it is checked but the numbers in the tensors.
 *
 * `path`: any bytes that the system takes on Unix, UTF-8 elsewhere. `options` may be NULL for the defaults.
 * `model` receives the model, which fastq_model_free ends.
 */
enum fastq_status fastq_model_load(const char *path,
                                   const struct fastq_load_options *options,
                                   struct fastq_model **model,
                                   struct fastq_error *error);

/**
 * Facts about a model; NULL for NULL.
 */
const struct fastq_info *fastq_model_info(const struct fastq_model *model);

/**
 * Ends a model, which no call uses any more. Its sessions keep its memory until they are freed, too. NULL does nothing.
 */
void fastq_model_free(struct fastq_model *model);

/**
 * A new session that remembers nothing. End it with fastq_session_free.
 */
enum fastq_status fastq_session_new(const struct fastq_model *model,
                                    struct fastq_session **session,
                                    struct fastq_error *error);

/**
 * Ends a session, which no call uses any more. NULL does nothing.
 */
void fastq_session_free(struct fastq_session *session);

/**
 * Fills a request with the defaults. `size` is sizeof(fastq_request).
 */
void fastq_request_init(struct fastq_request *request, size_t size);

/**
 * Continues a prompt, or answers a conversation.
 *
 * `callback` may be NULL; it is given `user_data`. `completion` may be NULL, too, or receives the answer, which fastq_free ends.
 * A generation that was cancelled returns FASTQ_STATUS_CANCELLED, and the completion is the answer so far; NULL when not even
 * the prompt was read. Model and session can be used again after every error.
 */
enum fastq_status fastq_generate(const struct fastq_model *model,
                                 const struct fastq_request *request,
                                 fastq_callback callback,
                                 void *user_data,
                                 struct fastq_completion **completion,
                                 struct fastq_error *error);

/**
 * The tokens of a text.
 *
 * `add_special`: not 0 adds the beginning and end tokens that the file asks for. `parse_special`: not 0 takes control tokens that
 * are spelled in the text as such, which only texts that are trusted should be allowed. `tokens` receives the tokens, which
 * fastq_free ends, and `count` their number.
 */
enum fastq_status fastq_tokenize(const struct fastq_model *model,
                                 const char *text,
                                 int add_special,
                                 int parse_special,
                                 uint32_t **tokens,
                                 size_t *count,
                                 struct fastq_error *error);

/**
 * The text of tokens.
 *
 * `special`: not 0 shows control tokens. `text` receives the text, which fastq_free ends, and `length`, which may be NULL, its
 * bytes without the zero at its end. Bytes that are no character become U+FFFD.
 */
enum fastq_status fastq_detokenize(const struct fastq_model *model,
                                   const uint32_t *tokens,
                                   size_t count,
                                   int special,
                                   char **text,
                                   size_t *length,
                                   struct fastq_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FASTQ_H */
