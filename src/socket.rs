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
/// How long a peer may be silent before the kernel asks whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

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
}

enum Mode {
    Evented(TcpStream),
    Blocking {
        stream: BlockingStream,
        stall: Duration,
        stop: CancellationToken,
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
        })
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
                    stall,
                    stop: stop.clone(),
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
        match &mut self.mode {
            Mode::Evented(stream) => Pin::new(stream).poll_read(cx, buf),
            Mode::Blocking {
                stream,
                stall,
                stop,
            } => {
                let n = persist(*stall, stop, || (&*stream).read(buf.initialize_unfilled()))?;
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
            Mode::Blocking {
                stream,
                stall,
                stop,
            } => Poll::Ready(persist(*stall, stop, || (&*stream).write(buf))),
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
            Mode::Blocking {
                stream,
                stall,
                stop,
            } => Poll::Ready(persist(*stall, stop, || (&*stream).write_vectored(bufs))),
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

/// Repeats a call that gives up after a tick, until it gets somewhere or must end.
fn persist(
    stall: Duration,
    stop: &CancellationToken,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut waiting_since = None;
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                if stop.is_cancelled() {
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "stopped"));
                }
                if since.elapsed() >= stall {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "nothing moved for too long",
                    ));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn lost() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the socket was lost in a change of mode",
    )
}
