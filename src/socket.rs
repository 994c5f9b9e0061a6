//! The socket under TLS, in one of two modes.
//!
//! Evented for waiting among many; blocking while one thread moves one body. A body that is read,
//! hashed, encrypted and written by one thread is touched while it is warm, and the runtime's own
//! threads never wait for a disk.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

/// How often a blocked thread looks whether it should stop.
const TICK: Duration = Duration::from_millis(250);
/// Slowest peer that is waited for, in bytes per second over one stall limit.
pub const RATE_MIN: u64 = 1 << 10;
/// How long a peer may be silent before the kernel asks whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Bytes of the other end that are kept for a text.
const FIRST_SIZE: usize = 16;

/// A stream that one thread may take over for the length of a body.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// From here on a read or write blocks the calling thread, at most for `stall` without any
    /// progress, and not past `stop`.
    ///
    /// # Errors
    /// The socket does not take the mode.
    fn block(&mut self, stall: Duration, stop: &CancellationToken) -> io::Result<()>;

    /// Back to waiting among many. Called on a thread that has the runtime's context.
    ///
    /// # Errors
    /// The socket does not take the mode.
    fn unblock(&mut self) -> io::Result<()>;

    /// Whether a read would find something now: bytes, an end, or an error.
    fn readable(&self) -> bool;
}

/// A TCP stream in one of the two modes.
pub struct Socket {
    mode: Mode,
    first: First,
}

/// What the other end said first, for whoever wonders what it speaks.
#[derive(Default)]
struct First {
    bytes: [u8; FIRST_SIZE],
    n: usize,
}

enum Mode {
    Evented(TcpStream),
    Blocking {
        stream: BlockingStream,
        stop: CancellationToken,
        pace: Pace,
    },
    /// A change of mode failed; the stream is gone.
    Lost,
}

impl Socket {
    /// Takes a connected stream and sets what every fsvc connection needs: no delay for small
    /// writes, and a sign of life from a silent peer.
    ///
    /// # Errors
    /// The peer is gone already.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream)
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
        Ok(Self {
            mode: Mode::Evented(stream),
            first: First::default(),
        })
    }

    /// The first bytes of what the other end said so far, a few at most.
    pub fn first_bytes(&self) -> &[u8] {
        &self.first.bytes[..self.first.n]
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.mode {
            Mode::Evented(stream) => stream.peer_addr(),
            Mode::Blocking { stream, .. } => stream.peer_addr(),
            Mode::Lost => Err(lost()),
        }
    }
}

impl First {
    fn keep(&mut self, bytes: &[u8]) {
        self.n = bytes.len().min(FIRST_SIZE);
        self.bytes[..self.n].copy_from_slice(&bytes[..self.n]);
    }
}

impl Transport for Socket {
    fn block(&mut self, stall: Duration, stop: &CancellationToken) -> io::Result<()> {
        self.mode = match std::mem::replace(&mut self.mode, Mode::Lost) {
            Mode::Evented(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(TICK))?;
                Mode::Blocking {
                    stream,
                    stop: stop.clone(),
                    pace: Pace::new(stall),
                }
            }
            mode => mode,
        };
        Ok(())
    }

    fn unblock(&mut self) -> io::Result<()> {
        self.mode = match std::mem::replace(&mut self.mode, Mode::Lost) {
            Mode::Blocking { stream, .. } => {
                stream.set_nonblocking(true)?;
                Mode::Evented(TcpStream::from_std(stream)?)
            }
            mode => mode,
        };
        Ok(())
    }

    fn readable(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let result = match &self.mode {
            Mode::Evented(stream) => recv(stream, &mut byte, flags),
            Mode::Blocking { stream, .. } => recv(stream, &mut byte, flags),
            Mode::Lost => return true,
        };
        !matches!(result, Err(rustix::io::Errno::AGAIN))
    }
}

impl Transport for TlsStream<Socket> {
    fn block(&mut self, stall: Duration, stop: &CancellationToken) -> io::Result<()> {
        self.get_mut().0.block(stall, stop)
    }

    fn unblock(&mut self) -> io::Result<()> {
        self.get_mut().0.unblock()
    }

    fn readable(&self) -> bool {
        self.get_ref().0.readable()
    }
}

/// In memory there is nothing to take over: a read waits for the other end of the pipe.
impl Transport for DuplexStream {
    fn block(&mut self, _stall: Duration, _stop: &CancellationToken) -> io::Result<()> {
        Ok(())
    }

    fn unblock(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn readable(&self) -> bool {
        false
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.mode {
            Mode::Evented(stream) => {
                let before = buf.filled().len();
                let polled = Pin::new(stream).poll_read(cx, buf);
                if this.first.n == 0 {
                    this.first.keep(&buf.filled()[before..]);
                }
                polled
            }
            Mode::Blocking { stream, stop, pace } => {
                let n = persist(pace, stop, || (&*stream).read(buf.initialize_unfilled()))?;
                buf.advance(n);
                Poll::Ready(Ok(()))
            }
            Mode::Lost => Poll::Ready(Err(lost())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.mode {
            Mode::Evented(stream) => Pin::new(stream).poll_write(cx, buf),
            Mode::Blocking { stream, stop, pace } => {
                Poll::Ready(persist(pace, stop, || (&*stream).write(buf)))
            }
            Mode::Lost => Poll::Ready(Err(lost())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.mode {
            Mode::Evented(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Mode::Blocking { stream, stop, pace } => {
                Poll::Ready(persist(pace, stop, || (&*stream).write_vectored(bufs)))
            }
            Mode::Lost => Poll::Ready(Err(lost())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.mode {
            Mode::Evented(stream) => Pin::new(stream).poll_flush(cx),
            Mode::Blocking { .. } => Poll::Ready(Ok(())),
            Mode::Lost => Poll::Ready(Err(lost())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.mode {
            Mode::Evented(stream) => Pin::new(stream).poll_shutdown(cx),
            Mode::Blocking { stream, .. } => {
                Poll::Ready(stream.shutdown(std::net::Shutdown::Write))
            }
            Mode::Lost => Poll::Ready(Err(lost())),
        }
    }
}

/// Holds a peer to the least rate, so that one byte now and then does not keep a slot for ever.
/// Only the time that the peer was waited for counts.
pub(crate) struct Pace {
    stall: Duration,
    waited: Duration,
    moved: u64,
}

impl Pace {
    pub(crate) const fn new(stall: Duration) -> Self {
        Self {
            stall,
            waited: Duration::ZERO,
            moved: 0,
        }
    }

    /// Counts what moved after a wait; says whether the peer is fast enough.
    pub(crate) fn moved(&mut self, n: usize, waited: Duration) -> bool {
        self.moved += n as u64;
        self.waited += waited;
        if self.waited < self.stall {
            return true;
        }
        let is_fast = self.moved >= RATE_MIN * self.waited.as_secs();
        *self = Self::new(self.stall);
        is_fast
    }
}

/// Repeats a call that gives up after a tick, until it gets somewhere or must end. The rate is held
/// here, since a TLS stream over a socket that blocks returns only with all that it was asked for.
fn persist(
    pace: &mut Pace,
    stop: &CancellationToken,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let began = Instant::now();
    loop {
        if stop.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped"));
        }
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if began.elapsed() >= pace.stall {
                    return Err(too_slow());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(n) if !pace.moved(n, began.elapsed()) => return Err(too_slow()),
            result => return result,
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "too little moved for too long")
}

fn lost() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the socket was lost in a change of mode",
    )
}
