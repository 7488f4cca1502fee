//! Places to compute in, the queue before them, and the way from the engine's thread to the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastq_core::{Completion, Error, Generation, GenerationOptions, Interrupt, Model, Piece, Prompt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::error::{ApiError, ApiResult};
use super::log::{self, Counted};
use super::state::Server;

/// Pieces on the way to a client. When it reads more slowly than the model writes, the engine's thread waits for it.
const PIECES_AHEAD: usize = 64;

/// The places: how many requests are computed, and how many wait.
pub(super) struct Places {
    free: Arc<Semaphore>,
    parallel: usize,
    queue: usize,
    waiting: AtomicUsize,
}

/// Counts who waits, also when it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    pub(super) fn new(parallel: usize, queue: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(parallel)), parallel, queue, waiting: AtomicUsize::new(0) }
    }

    /// Requests under way.
    pub(super) fn running(&self) -> usize {
        self.parallel - self.free.available_permits()
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place, in the order in which they were asked for; 429 when too many wait.
    async fn take(&self) -> ApiResult<OwnedSemaphorePermit> {
        let closed = |_| ApiError::internal("the places are closed");
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(place);
        }
        let enter = |waiting| (waiting < self.queue).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_err() {
            return Err(ApiError::busy(self.parallel, self.queue));
        }
        let _waiting = Waiting(&self.waiting);
        Arc::clone(&self.free).acquire_owned().await.map_err(closed)
    }
}

/// Tells the engine's thread to stop when it is dropped: with the handler of a request whose client has gone, or with the body of its answer.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A flag and the server's end as the engine's interrupt.
fn interrupt(server: &Arc<Server>, cancelled: &Arc<AtomicBool>) -> impl Interrupt + use<> {
    let (server, cancelled) = (Arc::clone(server), Arc::clone(cancelled));
    move || cancelled.load(Ordering::Relaxed) || server.is_ending()
}

/// Computes something in a place of its own. When the future is dropped, the computation stops.
///
/// # Errors
/// 429 when the queue is full, 503 when the server ends, and those of `compute`.
pub(super) async fn run<T: Send + 'static>(
    server: &Arc<Server>,
    compute: impl FnOnce(&Model, &dyn Interrupt) -> ApiResult<T> + Send + 'static,
) -> ApiResult<T> {
    let place = place(server).await?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let interrupt = interrupt(server, &cancelled);
    let _guard = CancelOnDrop(cancelled);
    let model = server.model.clone();
    let task = tokio::task::spawn_blocking(move || {
        let _place = place;
        compute(&model, &interrupt)
    });
    task.await.unwrap_or_else(|_| Err(ApiError::internal("a computation panicked")))
}

async fn place(server: &Arc<Server>) -> ApiResult<OwnedSemaphorePermit> {
    tokio::select! {
        place = server.places.take() => place,
        () = server.stopped() => Err(ApiError::stopping()),
    }
}

/// Prompts and how to continue them.
pub(super) type Requests = Vec<(Prompt, GenerationOptions)>;

/// What comes from the engine's thread.
pub(super) enum Event {
    /// Everything about the request is right; the answer begins.
    Started,
    /// More of an answer.
    Piece(Piece),
    /// All answers are complete.
    Done(Vec<Completion>),
    /// It ended early.
    Failed(ApiError),
}

/// A generation under way; dropped, it stops.
pub(super) struct Running {
    events: mpsc::Receiver<Event>,
    _guard: CancelOnDrop,
}

impl Running {
    /// The next event; after [`Event::Done`] and [`Event::Failed`] there is none.
    pub(super) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => Event::Failed(ApiError::internal("a computation panicked")),
        }
    }

    /// Waits for the answers.
    ///
    /// # Errors
    /// What ended it early.
    pub(super) async fn finish(mut self) -> ApiResult<Vec<Completion>> {
        loop {
            match self.next().await {
                Event::Started | Event::Piece(_) => {}
                Event::Done(completions) => return Ok(completions),
                Event::Failed(error) => return Err(error),
            }
        }
    }
}

/// Waits for a place and starts a generation in it: `prepare`, which may take long (templates, tokens, grammars), then the steps. What `prepare`
/// gives beside the requests is for the caller.
///
/// # Errors
/// 429 when the queue is full, 503 when the server ends, and what is wrong with the request: after this, the answer can begin.
pub(super) async fn start<T: Send + 'static>(
    server: &Arc<Server>,
    prepare: impl FnOnce(&Model, &dyn Interrupt) -> ApiResult<(Requests, T)> + Send + 'static,
) -> ApiResult<(Running, T)> {
    let place = place(server).await?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let interrupt = interrupt(server, &cancelled);
    let (sender, events) = mpsc::channel(PIECES_AHEAD);
    let (more_sender, mut more) = oneshot::channel();
    let mut running = Running { events, _guard: CancelOnDrop(cancelled) };
    let (task_server, counted) = (Arc::clone(server), log::counted());
    let prepare = move |model: &Model, interrupt: &dyn Interrupt| {
        let (requests, more) = prepare(model, interrupt)?;
        // Nobody waits for it when the client has gone.
        let _ = more_sender.send(more);
        Ok(requests)
    };
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let last = match generate(&task_server, prepare, &sender, &counted, &interrupt) {
            Ok(completions) => Event::Done(completions),
            Err(error) => Event::Failed(error),
        };
        // A client that has gone gets nothing.
        let _ = sender.blocking_send(last);
    });
    match running.next().await {
        Event::Failed(error) => Err(error),
        _ => more
            .try_recv()
            .map(|more| (running, more))
            .map_err(|_| ApiError::internal("a generation without its parts")),
    }
}

/// The engine's thread.
fn generate(
    server: &Server,
    prepare: impl FnOnce(&Model, &dyn Interrupt) -> ApiResult<Requests>,
    sender: &mpsc::Sender<Event>,
    counted: &Counted,
    interrupt: &dyn Interrupt,
) -> ApiResult<Vec<Completion>> {
    let requests = prepare(&server.model, interrupt)?;
    let each = requests.iter().map(|(prompt, options)| (prompt.clone(), options));
    let mut generation = Generation::each(&server.model, each, interrupt)?;
    sender.blocking_send(Event::Started).map_err(|_| Error::Cancelled)?;
    let result = steps(&mut generation, sender, interrupt);
    // What was computed for somebody who has gone counts, too.
    generation.cancel();
    let completions: Vec<Completion> = generation.completions().into_iter().flatten().collect();
    server.metrics.computed(&completions);
    for completion in &completions {
        counted.prompt.fetch_add(completion.prompt_tokens, Ordering::Relaxed);
        counted.answer.fetch_add(completion.tokens.len(), Ordering::Relaxed);
    }
    result.map(|()| completions)
}

/// Sends pieces until there are no more.
fn steps(generation: &mut Generation, sender: &mpsc::Sender<Event>, interrupt: &dyn Interrupt) -> ApiResult<()> {
    while !generation.finished() {
        for piece in generation.step(interrupt)? {
            sender.blocking_send(Event::Piece(piece)).map_err(|_| Error::Cancelled)?;
        }
    }
    Ok(())
}
