/* Uses libfastq as a program does, and misuses it.
 *
 *     test prompt MODEL N TEXT             the N tokens that continue a text, the most likely ones
 *     test chat MODEL N TEXT               the same, of an answer
 *     test checks MODEL OTHER FOLDER       everything else; FOLDER is for scratch files
 */
#define _POSIX_C_SOURCE 200809L

#include <fastq.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

/* The call returns `status` and, when that is an error, a message with `part` in it. */
#define EXPECT(call, status, part)                                                                            \
    do {                                                                                                      \
        fastq_error error;                                                                                    \
        fastq_status found;                                                                                   \
        memset(&error, 0x5a, sizeof error);                                                                   \
        found = (call);                                                                                       \
        if (found != (status) || error.code != found || !strstr(error.message, part) ||                       \
            (found == FASTQ_STATUS_OK) != (error.message[0] == 0)) {                                          \
            fprintf(stderr, "%s:%d: %s\n  expected %d with \"%s\", found %d: %s\n", __FILE__, __LINE__, #call, \
                    (int)(status), part, (int)found, error.message);                                          \
            exit(1);                                                                                          \
        }                                                                                                     \
    } while (0)
#define OK(call) EXPECT(call, FASTQ_STATUS_OK, "")
#define WRONG(call, part) EXPECT(call, FASTQ_STATUS_INVALID_ARGUMENT, part)

static fastq_model *load(const char *path) {
    fastq_load_options options;
    fastq_model *model = NULL;
    fastq_load_options_init(&options, sizeof options);
    options.context = 256;
    options.threads = 2;
    OK(fastq_model_load(path, &options, &model, &error));
    CHECK(model != NULL);
    return model;
}

static fastq_request greedy(const char *prompt, size_t tokens) {
    fastq_request request;
    fastq_request_init(&request, sizeof request);
    request.prompt = prompt;
    request.max_tokens = tokens;
    request.temperature = 0;
    return request;
}

/* ---------------------------------------------------------------------------------------- answers to compare */

static int print_tokens(const char *kind, const char *path, size_t count, const char *text) {
    fastq_model *model = load(path);
    fastq_message message = {"user", NULL};
    fastq_request request = greedy(text, count);
    fastq_completion *answer = NULL;
    size_t i;
    message.content = text;
    if (strcmp(kind, "chat") == 0) {
        request.prompt = NULL;
        request.messages = &message;
        request.message_count = 1;
    }
    OK(fastq_generate(model, &request, NULL, NULL, &answer, &error));
    for (i = 0; i < answer->token_count; i++) {
        printf("%s%lu", i ? " " : "", (unsigned long)answer->tokens[i]);
    }
    printf("\n");
    fastq_free(answer);
    fastq_model_free(model);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- pieces */

typedef struct {
    char text[1 << 16];
    size_t length;
    int pieces;
    int stop_after;
} collected;

static int is_utf8(const char *text, size_t length) {
    size_t i = 0;
    while (i < length) {
        unsigned char c = (unsigned char)text[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;
        if (more > 3 || i + more >= length) {
            return 0;
        }
        for (i++; more > 0; more--, i++) {
            if (((unsigned char)text[i] & 0xc0) != 0x80) {
                return 0;
            }
        }
    }
    return 1;
}

static int collect(const char *piece, size_t length, void *user_data) {
    collected *all = user_data;
    CHECK(length > 0 && piece[length] == 0 && is_utf8(piece, length));
    CHECK(all->length + length < sizeof all->text);
    memcpy(all->text + all->length, piece, length);
    all->length += length;
    all->pieces++;
    return all->pieces == all->stop_after;
}

static void test_generation(fastq_model *model) {
    static collected all;
    fastq_request request = greedy("Once upon a time", 24);
    fastq_completion *answer = NULL, *again = NULL;
    fastq_logit_bias bias;
    const char *stop[2] = {"never to be found in an answer", NULL};
    char last[5] = {0};
    size_t at;

    memset(&all, 0, sizeof all);
    OK(fastq_generate(model, &request, collect, &all, &answer, &error));
    CHECK(answer->size == sizeof *answer);
    CHECK(answer->text_length == all.length && memcmp(answer->text, all.text, all.length) == 0);
    CHECK(answer->text[answer->text_length] == 0);
    CHECK(answer->token_count == 24 && answer->finish_reason == FASTQ_FINISH_LENGTH);
    CHECK(answer->prompt_tokens > 0 && answer->prefill_tokens == answer->prompt_tokens && answer->cached_tokens == 0);
    CHECK(answer->decode_tokens == 23 && answer->prefill_seconds > 0 && answer->decode_seconds > 0);

    /* Neither the callback nor the completion nor the error is needed. */
    CHECK(fastq_generate(model, &request, NULL, NULL, NULL, NULL) == FASTQ_STATUS_OK);

    /* Tokens in place of text. */
    {
        uint32_t *tokens = NULL;
        size_t count = 0;
        fastq_request same = greedy(NULL, 24);
        OK(fastq_tokenize(model, "Once upon a time", 1, 1, &tokens, &count, &error));
        same.tokens = tokens;
        same.token_count = count;
        OK(fastq_generate(model, &same, NULL, NULL, &again, &error));
        CHECK(again->token_count == 24 && memcmp(again->tokens, answer->tokens, 24 * sizeof *tokens) == 0);
        fastq_free(again);
        fastq_free(tokens);
    }

    /* A stop text ends the answer where it first comes up. */
    at = answer->text_length - 1;
    while (at > 0 && ((unsigned char)answer->text[at] & 0xc0) == 0x80) {
        at--;
    }
    memcpy(last, answer->text + at, answer->text_length - at);
    stop[1] = last;
    request.stop = stop;
    request.stop_count = 2;
    memset(&all, 0, sizeof all);
    OK(fastq_generate(model, &request, collect, &all, &again, &error));
    CHECK(again->finish_reason == FASTQ_FINISH_STOP && strstr(again->text, last) == NULL);
    CHECK(again->text_length < answer->text_length && again->text_length == all.length);
    CHECK(memcmp(again->text, answer->text, again->text_length) == 0);
    CHECK(memcmp(again->text, all.text, all.length) == 0);
    fastq_free(again);
    request.stop_count = 0;

    /* A token that is forbidden is not chosen. */
    bias.token = answer->tokens[0];
    bias.bias = -INFINITY;
    request.logit_bias = &bias;
    request.logit_bias_count = 1;
    OK(fastq_generate(model, &request, NULL, NULL, &again, &error));
    CHECK(again->token_count > 0 && again->tokens[0] != answer->tokens[0]);
    fastq_free(again);
    request.logit_bias_count = 0;

    /* Nothing to be generated. */
    request.max_tokens = 0;
    OK(fastq_generate(model, &request, NULL, NULL, &again, &error));
    CHECK(again->token_count == 0 && again->text[0] == 0 && again->finish_reason == FASTQ_FINISH_LENGTH);
    fastq_free(again);

    /* Until the context is full. */
    request.max_tokens = SIZE_MAX;
    request.flags = FASTQ_IGNORE_EOS | FASTQ_SHOW_SPECIAL;
    OK(fastq_generate(model, &request, NULL, NULL, &again, &error));
    CHECK(again->finish_reason == FASTQ_FINISH_LENGTH);
    CHECK(again->prompt_tokens + again->token_count == fastq_model_info(model)->context);
    fastq_free(again);
    fastq_free(answer);
}

static void test_seeds(fastq_model *model) {
    fastq_request request = greedy("Once upon a time", 16);
    fastq_completion *first = NULL, *second = NULL, *third = NULL;
    request.temperature = 1.5f;
    request.top_k = 0;
    request.top_p = 1;
    request.min_p = 0;
    OK(fastq_generate(model, &request, NULL, NULL, &first, &error));
    OK(fastq_generate(model, &request, NULL, NULL, &second, &error));
    CHECK(first->seed != second->seed);
    request.seed = first->seed;
    OK(fastq_generate(model, &request, NULL, NULL, &third, &error));
    CHECK(third->seed == first->seed && third->token_count == first->token_count);
    CHECK(memcmp(third->tokens, first->tokens, first->token_count * sizeof *first->tokens) == 0);
    fastq_free(first);
    fastq_free(second);
    fastq_free(third);
}

/* ------------------------------------------------------------------------------------------------ cancelling */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int begun, cancelled, pieces;
    fastq_cancel *cancel;
} meeting;

/* Waits in the first piece until the other thread has cancelled. */
static int wait_for_cancel(const char *piece, size_t length, void *user_data) {
    meeting *m = user_data;
    (void)piece;
    (void)length;
    pthread_mutex_lock(&m->lock);
    m->pieces++;
    m->begun = 1;
    pthread_cond_broadcast(&m->changed);
    while (!m->cancelled) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static void *cancel_when_begun(void *user_data) {
    meeting *m = user_data;
    pthread_mutex_lock(&m->lock);
    while (!m->begun) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    fastq_cancel_set(m->cancel);
    m->cancelled = 1;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

static void test_cancelling(fastq_model *model, const char *path) {
    static collected all;
    meeting m;
    pthread_t other;
    fastq_request request = greedy("Once upon a time", SIZE_MAX);
    fastq_load_options options;
    fastq_completion *answer = NULL;
    fastq_model *second = (fastq_model *)&m;

    memset(&m, 0, sizeof m);
    pthread_mutex_init(&m.lock, NULL);
    pthread_cond_init(&m.changed, NULL);
    m.cancel = fastq_cancel_new();
    request.cancel = m.cancel;
    request.flags = FASTQ_IGNORE_EOS;
    CHECK(pthread_create(&other, NULL, cancel_when_begun, &m) == 0);
    EXPECT(fastq_generate(model, &request, wait_for_cancel, &m, &answer, &error), FASTQ_STATUS_CANCELLED, "cancelled");
    CHECK(pthread_join(other, NULL) == 0);
    CHECK(m.pieces <= 2 && answer != NULL && answer->finish_reason == FASTQ_FINISH_CANCELLED && answer->token_count > 0);
    fastq_free(answer);

    /* It stays set. */
    EXPECT(fastq_generate(model, &request, NULL, NULL, &answer, &error), FASTQ_STATUS_CANCELLED, "cancelled");
    CHECK(answer == NULL || answer->token_count == 0);
    fastq_free(answer);
    fastq_load_options_init(&options, sizeof options);
    options.cancel = m.cancel;
    EXPECT(fastq_model_load(path, &options, &second, &error), FASTQ_STATUS_CANCELLED, "cancelled");
    CHECK(second == NULL);

    /* Until it is cleared, and the model still works. */
    fastq_cancel_clear(m.cancel);
    request.max_tokens = 4;
    OK(fastq_generate(model, &request, NULL, NULL, &answer, &error));
    CHECK(answer->token_count == 4);
    fastq_free(answer);

    /* The callback ends a generation, too. */
    request.max_tokens = SIZE_MAX;
    memset(&all, 0, sizeof all);
    all.stop_after = 2;
    EXPECT(fastq_generate(model, &request, collect, &all, &answer, &error), FASTQ_STATUS_CANCELLED, "cancelled");
    CHECK(all.pieces == 2 && answer->finish_reason == FASTQ_FINISH_CANCELLED);
    CHECK(answer->text_length >= all.length && memcmp(answer->text, all.text, all.length) == 0);
    fastq_free(answer);

    fastq_cancel_free(m.cancel);
    pthread_cond_destroy(&m.changed);
    pthread_mutex_destroy(&m.lock);
}

/* ------------------------------------------------------------------------------------------ chats and sessions */

typedef struct {
    fastq_model *model;
    fastq_request request;
    int called;
} nested;

static int call_again(const char *piece, size_t length, void *user_data) {
    nested *n = user_data;
    fastq_request request = n->request;
    fastq_completion *answer = NULL;
    (void)piece;
    (void)length;
    n->called = 1;
    EXPECT(fastq_generate(n->model, &request, NULL, NULL, &answer, &error), FASTQ_STATUS_BUSY, "request.session");
    request.session = NULL;
    OK(fastq_generate(n->model, &request, NULL, NULL, &answer, &error));
    fastq_free(answer);
    return 1;
}

static void test_sessions(fastq_model *model, fastq_model *other) {
    fastq_message messages[3] = {{"user", "Name a colour."}, {"assistant", NULL}, {"user", "And another."}};
    fastq_request request = greedy(NULL, 8);
    fastq_completion *first = NULL, *kept = NULL, *fresh = NULL;
    fastq_session *session = NULL;
    nested n;
    char *said;

    CHECK(fastq_model_info(model)->has_chat_template);
    OK(fastq_session_new(model, &session, &error));
    request.messages = messages;
    request.message_count = 1;
    request.session = session;
    OK(fastq_generate(model, &request, NULL, NULL, &first, &error));
    CHECK(first->cached_tokens == 0);
    said = malloc(first->text_length + 1);
    memcpy(said, first->text, first->text_length + 1);
    messages[1].content = said;
    request.message_count = 3;
    OK(fastq_generate(model, &request, NULL, NULL, &kept, &error));
    CHECK(kept->cached_tokens > 0 && kept->cached_tokens + kept->prefill_tokens == kept->prompt_tokens);
    request.session = NULL;
    OK(fastq_generate(model, &request, NULL, NULL, &fresh, &error));
    CHECK(fresh->token_count == kept->token_count && fresh->cached_tokens == 0);
    CHECK(memcmp(fresh->tokens, kept->tokens, kept->token_count * sizeof *kept->tokens) == 0);
    fastq_free(first);
    fastq_free(kept);
    fastq_free(fresh);

    request.session = session;
    WRONG(fastq_generate(other, &request, NULL, NULL, NULL, &error), "request.session is one of another model");
    n.model = model;
    n.request = request;
    n.called = 0;
    EXPECT(fastq_generate(model, &request, call_again, &n, NULL, &error), FASTQ_STATUS_CANCELLED, "cancelled");
    CHECK(n.called);
    OK(fastq_generate(model, &request, NULL, NULL, NULL, &error));
    messages[1].content = "\xc3(";
    WRONG(fastq_generate(model, &request, NULL, NULL, NULL, &error), "request.messages[1].content is not UTF-8 at byte 0");
    messages[1].role = NULL;
    WRONG(fastq_generate(model, &request, NULL, NULL, NULL, &error), "request.messages[1].role must not be NULL");
    fastq_session_free(session);
    free(said);
}

/* --------------------------------------------------------------------------------------------------- threads */

typedef struct {
    fastq_model *model;
    fastq_completion *answer;
} job;

static void *generate_alone(void *user_data) {
    job *j = user_data;
    fastq_request request = greedy("The sun is", 16);
    OK(fastq_generate(j->model, &request, NULL, NULL, &j->answer, &error));
    return NULL;
}

static void test_threads(fastq_model *model, fastq_model *other) {
    job jobs[6];
    pthread_t threads[6];
    size_t i;
    for (i = 0; i < 6; i++) {
        jobs[i].model = i % 3 == 2 ? other : model;
        jobs[i].answer = NULL;
        if (i < 3) {
            generate_alone(&jobs[i]);
        } else {
            CHECK(pthread_create(&threads[i], NULL, generate_alone, &jobs[i]) == 0);
        }
    }
    for (i = 3; i < 6; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (i = 0; i < 6; i++) {
        fastq_completion *alone = jobs[i % 3].answer, *together = jobs[i].answer;
        CHECK(alone->token_count == together->token_count);
        CHECK(memcmp(alone->tokens, together->tokens, alone->token_count * sizeof *alone->tokens) == 0);
    }
    for (i = 0; i < 6; i++) {
        fastq_free(jobs[i].answer);
    }
}

/* ------------------------------------------------------------------------------------------- tokens and facts */

static void test_tokens(fastq_model *model) {
    const char *text = "Hello w\xc3\xb6rld \xf0\x9f\x8c\x8d";
    uint32_t *tokens = NULL;
    uint32_t beyond = (uint32_t)fastq_model_info(model)->vocabulary;
    char *back = NULL;
    size_t count = 0, length = 0;
    OK(fastq_tokenize(model, text, 0, 0, &tokens, &count, &error));
    CHECK(count > 0 && tokens[count - 1] < beyond);
    OK(fastq_detokenize(model, tokens, count, 0, &back, &length, &error));
    CHECK(length == strlen(text) && strcmp(back, text) == 0);
    fastq_free(back);
    OK(fastq_detokenize(model, tokens, count, 0, &back, NULL, &error));
    CHECK(strcmp(back, text) == 0);
    fastq_free(back);
    fastq_free(tokens);

    OK(fastq_tokenize(model, "", 0, 0, &tokens, &count, &error));
    CHECK(count == 0 && tokens != NULL);
    fastq_free(tokens);
    OK(fastq_detokenize(model, NULL, 0, 0, &back, &length, &error));
    CHECK(length == 0 && back[0] == 0);
    fastq_free(back);

    tokens = &beyond;
    WRONG(fastq_tokenize(model, "\xff", 0, 0, &tokens, &count, &error), "text is not UTF-8 at byte 0");
    CHECK(tokens == NULL && count == 0);
    WRONG(fastq_tokenize(model, NULL, 0, 0, &tokens, &count, &error), "text must not be NULL");
    WRONG(fastq_tokenize(model, "a", 0, 0, NULL, &count, &error), "tokens must not be NULL");
    WRONG(fastq_tokenize(model, "a", 0, 0, &tokens, NULL, &error), "count must not be NULL");
    WRONG(fastq_tokenize(NULL, "a", 0, 0, &tokens, &count, &error), "model must not be NULL");
    WRONG(fastq_detokenize(model, &beyond, 1, 0, &back, &length, &error), "vocabulary");
    CHECK(back == NULL && length == 0);
    WRONG(fastq_detokenize(model, NULL, 1, 0, &back, &length, &error), "tokens must not be NULL");
    WRONG(fastq_detokenize(model, &beyond, SIZE_MAX, 0, &back, &length, &error), "tokens cannot have");
    WRONG(fastq_detokenize(model, &beyond, 1, 0, NULL, &length, &error), "text must not be NULL");
}

static void test_facts(fastq_model *model) {
    const fastq_info *info = fastq_model_info(model);
    CHECK(strcmp(info->architecture, "llama") == 0 && strlen(info->name) > 0 && strlen(info->tokenizer) > 0);
    CHECK(strcmp(info->kv, "f16") == 0 && strlen(info->level) > 0 && info->size == sizeof *info);
    CHECK(info->context == 256 && info->trained_context >= 256 && info->threads == 2 && info->vocabulary > 256);
    CHECK(info->parameters > 0 && info->file_bytes > 0 && info->bits_per_weight > 0 && info->load_seconds > 0);
    CHECK(info->layers > 0 && info->width > 0);
    CHECK(fastq_model_info(NULL) == NULL);
    CHECK(fastq_api_version() == FASTQ_API_VERSION && fastq_version()[0] != 0);
}

/* ---------------------------------------------------------------------------------------------------- misuse */

static void test_requests(fastq_model *model) {
    fastq_request request = greedy("a", 1), good = request;
    fastq_logit_bias bias = {0, NAN};
    fastq_session *odd_session = (fastq_session *)((char *)&request + 1);
    const char *stop[1] = {""};
    fastq_completion *answer = (fastq_completion *)&request;
    char unaligned[2 * sizeof(fastq_request)];
    uint32_t beyond = (uint32_t)fastq_model_info(model)->vocabulary;
    uint32_t *many = calloc(1000, sizeof *many);

    CHECK(many != NULL);
    WRONG(fastq_generate(NULL, &request, NULL, NULL, &answer, &error), "model must not be NULL");
    CHECK(answer == NULL);
    WRONG(fastq_generate(model, NULL, NULL, NULL, NULL, &error), "request must not be NULL");
    WRONG(fastq_generate(model, (const fastq_request *)(unaligned + 1 + (size_t)unaligned % 2), NULL, NULL, NULL, &error),
          "request must be aligned");
    CHECK(fastq_generate(model, NULL, NULL, NULL, NULL, NULL) == FASTQ_STATUS_INVALID_ARGUMENT);
    memset(&request, 0, sizeof request);
    WRONG(fastq_generate(model, &request, NULL, NULL, NULL, &error), "call fastq_request_init first");
    fastq_request_init(NULL, sizeof request);
#define BAD(change, part)                                                    \
    do {                                                                     \
        request = good;                                                      \
        change;                                                              \
        answer = (fastq_completion *)&request;                               \
        WRONG(fastq_generate(model, &request, NULL, NULL, &answer, &error), part); \
        CHECK(answer == NULL);                                               \
    } while (0)
    BAD(request.prompt = NULL, "found 0");
    BAD(request.tokens = &beyond, "found 2");
    BAD(request.prompt = "a\xff", "request.prompt is not UTF-8 at byte 1");
    BAD((request.prompt = NULL, request.tokens = &beyond, request.token_count = 1), "outside the vocabulary");
    BAD((request.prompt = NULL, request.tokens = &beyond, request.token_count = SIZE_MAX / 2), "request.tokens cannot have");
    BAD(request.stop_count = 1, "request.stop must not be NULL");
    BAD((request.stop = stop, request.stop_count = 1), "stop");
    BAD((stop[0] = NULL, request.stop = stop, request.stop_count = 1), "request.stop[0] must not be NULL");
    BAD(request.logit_bias_count = 2, "request.logit_bias must not be NULL");
    BAD((request.logit_bias = &bias, request.logit_bias_count = 1), "logit_bias of token 0");
    BAD((bias.token = beyond, request.logit_bias = &bias, request.logit_bias_count = 1), "logit_bias names token");
    BAD(request.temperature = -1, "temperature");
    BAD(request.temperature = NAN, "temperature");
    BAD(request.top_p = 2, "top_p");
    BAD(request.min_p = 2, "min_p");
    BAD(request.typical_p = 0, "typical_p");
    BAD(request.repeat_penalty = 0, "repeat_penalty");
    BAD(request.flags = 0x80, "request.flags has flags that are not known: 0x80");
    BAD(request.session = odd_session, "request.session must be aligned");
    request = greedy(NULL, 1);
    request.tokens = many;
    request.token_count = 1000;
    EXPECT(fastq_generate(model, &request, NULL, NULL, NULL, &error), FASTQ_STATUS_CONTEXT, "1000 tokens");
    /* A program that knows more than the library, and asks for it or not. */
    {
        struct {
            fastq_request known;
            uint64_t more;
        } later;
        fastq_request_init(&later.known, sizeof later);
        later.known.prompt = "a";
        later.known.max_tokens = 1;
        OK(fastq_generate(model, &later.known, NULL, NULL, NULL, &error));
        later.more = 1;
        WRONG(fastq_generate(model, &later.known, NULL, NULL, NULL, &error), "does not know");
    }
    free(many);
    WRONG(fastq_session_new(NULL, (fastq_session **)&answer, &error), "model must not be NULL");
    WRONG(fastq_session_new(model, NULL, &error), "session must not be NULL");
    fastq_cancel_set(NULL);
    fastq_cancel_clear(NULL);
    fastq_cancel_free(NULL);
    fastq_session_free(NULL);
    fastq_model_free(NULL);
    fastq_free(NULL);
}

static void write_file(const char *path, const void *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);
}

/* The first bytes of a file, at most `most`; their number replaces it. */
static char *read_file(const char *path, size_t *most) {
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(*most);
    CHECK(file != NULL && bytes != NULL);
    *most = fread(bytes, 1, *most, file);
    fclose(file);
    return bytes;
}

static void test_files(const char *path, const char *small, const char *folder) {
    fastq_load_options options;
    fastq_model *model = (fastq_model *)&options;
    char scratch[4096];
    static const char key[] = "general.architecture";
    char *bytes;
    size_t length, whole = 1 << 24, start = 100000;

    snprintf(scratch, sizeof scratch, "%s/scratch.gguf", folder);
    remove(scratch);
    fastq_load_options_init(&options, sizeof options);
    EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_NOT_FOUND, "scratch.gguf");
    CHECK(model == NULL);
    EXPECT(fastq_model_load("\xff\xfe/no.gguf", NULL, &model, &error), FASTQ_STATUS_NOT_FOUND, "no.gguf");
    EXPECT(fastq_model_load(folder, NULL, &model, &error), FASTQ_STATUS_FORMAT, "found a folder");
    snprintf(scratch, sizeof scratch, "%s/below-a-file.gguf", path);
    EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_IO, "below-a-file.gguf");
    snprintf(scratch, sizeof scratch, "%s/scratch.gguf", folder);
    write_file(scratch, "# a text", 8);
    EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_FORMAT, "GGUF");
    write_file(scratch, "", 0);
    EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_FORMAT, "scratch.gguf");
    bytes = read_file(path, &start);
    for (length = 5; length < start; length *= 3) {
        write_file(scratch, bytes, length);
        EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_FORMAT, "scratch.gguf");
        CHECK(model == NULL);
    }
    free(bytes);
    /* An architecture that nobody knows: the value follows the key, its type (4 bytes) and its length (8). */
    bytes = read_file(small, &whole);
    for (length = 0; memcmp(bytes + length, key, sizeof key - 1) != 0; length++) {
        CHECK(length + sizeof key + 16 < whole);
    }
    bytes[length + sizeof key - 1 + 12] = 'X';
    write_file(scratch, bytes, whole);
    EXPECT(fastq_model_load(scratch, NULL, &model, &error), FASTQ_STATUS_UNSUPPORTED, "X");
    free(bytes);
    remove(scratch);

    WRONG(fastq_model_load(NULL, NULL, &model, &error), "path must not be NULL");
    WRONG(fastq_model_load(path, NULL, NULL, &error), "model must not be NULL");
    memset(&options, 0xff, sizeof options);
    WRONG(fastq_model_load(path, &options, &model, &error), "call fastq_load_options_init first");
    fastq_load_options_init(NULL, sizeof options);
#define REFUSED(change, part)                                           \
    do {                                                                \
        fastq_load_options_init(&options, sizeof options);              \
        change;                                                         \
        WRONG(fastq_model_load(path, &options, &model, &error), part);  \
        CHECK(model == NULL);                                           \
    } while (0)
    REFUSED(options.kv = "q4", "kv must be");
    REFUSED(options.kv = "\xff", "load_options.kv is not UTF-8");
    REFUSED(options.threads = SIZE_MAX, "threads must be");
    REFUSED(options.context = SIZE_MAX, "context must be");
    REFUSED(options.prefill_chunk = 0, "prefill_chunk must be");
    REFUSED(options.flags = 2, "load_options.flags");
    fastq_load_options_init(&options, sizeof options);
    options.kv = "q8_0";
    options.flags = FASTQ_NO_MMAP;
    options.context = 128;
    OK(fastq_model_load(path, &options, &model, &error));
    CHECK(strcmp(fastq_model_info(model)->kv, "q8_0") == 0 && fastq_model_info(model)->context == 128);
    {
        fastq_session *session = NULL;
        fastq_request request = greedy("a", 2);
        request.flags = FASTQ_IGNORE_EOS;
        OK(fastq_session_new(model, &session, &error));
        request.session = session;
        OK(fastq_generate(model, &request, NULL, NULL, NULL, &error));
        /* A session may be freed after its model. */
        fastq_model_free(model);
        fastq_session_free(session);
    }
}

int main(int argc, char **argv) {
    if (argc == 5 && (strcmp(argv[1], "prompt") == 0 || strcmp(argv[1], "chat") == 0)) {
        return print_tokens(argv[1], argv[2], strtoul(argv[3], NULL, 10), argv[4]);
    }
    if (argc == 5 && strcmp(argv[1], "checks") == 0) {
        fastq_model *model = load(argv[2]), *other = load(argv[3]);
        test_facts(model);
        test_tokens(model);
        test_generation(model);
        test_seeds(model);
        test_cancelling(model, argv[2]);
        test_sessions(model, other);
        test_threads(model, other);
        test_requests(model);
        test_files(argv[2], argv[3], argv[4]);
        fastq_model_free(other);
        fastq_model_free(model);
        printf("%s: all checks passed\n", argv[2]);
        return 0;
    }
    fprintf(stderr, "usage: test prompt|chat MODEL N TEXT\n       test checks MODEL OTHER FOLDER\n");
    return 2;
}
