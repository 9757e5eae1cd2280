package sslstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/sslstream/sslstream/internal/transport"
)

// This file answers how a session ends, and who has the inner stream then.

// CloseWrite sends close_notify (RFC 8446, Section 6.1); reading goes on. It corresponds to SslStream.ShutdownAsync. It
// does not half-close the inner stream. Where a deadline cuts it short, calling it again, or Flush, sends the rest.
func (s *Stream) CloseWrite() error {
	return s.write(context.Background(), func() error {
		if s.unwrapped.Load() {
			return nil
		}
		s.queueCloseNotify()
		return s.transport.Flush()
	})
}

// queueCloseNotify ends the writing direction; the caller holds writing.
func (s *Stream) queueCloseNotify() {
	if !s.writeClosed.Swap(true) {
		s.tls.CloseWrite() // into the queue: it cannot fail
		s.transport.StopWriting()
	}
}

// Unwrap ends the TLS session on both sides and gives the inner stream back, open, exactly behind the peer's
// close_notify: it sends close_notify, then reads and discards until the peer's. It needs LeaveInnerOpen. A peer that just
// hangs up gives io.ErrUnexpectedEOF. Where ctx or a deadline ends it, it can be called again. For the other order (wait
// for the peer first), Read to io.EOF, then Unwrap.
func (s *Stream) Unwrap(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := s.needsLeaveInnerOpen("Unwrap"); err != nil {
		return nil, err
	}
	if s.unwrapped.Load() {
		return s.inner, nil
	}
	// The peer may be doing the same over a synchronous inner stream, so neither may wait for the other to read.
	ctx, cancel := context.WithCancelCause(orBackground(ctx))
	defer cancel(nil)
	sent := make(chan error, 1)
	go func() {
		err := s.write(ctx, func() error {
			if s.unwrapped.Load() {
				return nil
			}
			s.queueCloseNotify()
			return s.transport.Flush()
		})
		if err != nil {
			cancel(err)
		}
		sent <- err
	}()
	err := s.awaitCloseNotify(ctx)
	if err != nil {
		cancel(err)
	}
	if werr := <-sent; werr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = werr
	}
	if err == nil {
		err = s.giveBack(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.inner, nil
}

// giveBack ends the use of the inner stream, which nobody may be at meanwhile: several may unwrap at once.
func (s *Stream) giveBack(ctx context.Context) error {
	if _, err := s.reading.take(ctx, 0); err != nil {
		return err
	}
	defer s.reading.give()
	if _, err := s.writing.take(ctx, 0); err != nil {
		return err
	}
	defer s.writing.give()
	if !s.unwrapped.Swap(true) {
		s.countEnd()
		s.transport.Release()
	}
	return nil
}

// awaitCloseNotify reads and discards until the peer's close_notify.
func (s *Stream) awaitCloseNotify(ctx context.Context) error {
	if _, err := s.reading.take(ctx, 0); err != nil {
		return err
	}
	defer s.reading.give()
	for buf := make([]byte, 4096); ; {
		switch _, err := s.readLocked(ctx, s.ReadTimeout(), buf); {
		case err == nil:
		case err == io.EOF && s.closeNotify.Load():
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

func (s *Stream) needsLeaveInnerOpen(method string) error {
	if err := s.usable(); err != nil {
		return err
	}
	if !s.leaveOpen {
		return fmt.Errorf("sslstream: %s needs a stream made with LeaveInnerOpen: without it more may have been read from the inner stream than TLS needs", method)
	}
	return nil
}

// Detach ends the stream without sending or reading a byte and gives the inner stream back, for protocols that encrypt
// a part of the conversation only, such as TDS. It needs LeaveInnerOpen, no call under way, nothing queued to be written,
// and no plaintext unread; an error says what is in the way, and the stream stays usable.
func (s *Stream) Detach() (io.ReadWriteCloser, error) {
	if err := s.needsLeaveInnerOpen("Detach"); err != nil {
		return nil, err
	}
	if !s.reading.try() {
		return nil, errors.New("sslstream: Detach while a Read is under way")
	}
	defer s.reading.give()
	if !s.writing.try() {
		return nil, errors.New("sslstream: Detach while a Write is under way")
	}
	defer s.writing.give()
	if err := s.usable(); err != nil {
		return nil, err
	}
	if n, busy := s.transport.Unsent(); n > 0 || busy {
		return nil, fmt.Errorf("sslstream: Detach with %d bytes still to be sent; Flush first", n)
	}
	if !s.transport.Boundary() {
		return nil, errors.New("sslstream: Detach inside a record of the peer's; Read it first")
	}
	// crypto/tls may hold plaintext of a record that was read in part. Nothing can come from inner now.
	var buf [1]byte
	n, err := s.transport.Dry(func() (int, error) { return s.tls.Read(buf[:]) })
	s.unread = append(s.unread, buf[:n]...)
	if len(s.unread) > 0 {
		return nil, errors.New("sslstream: Detach with plaintext unread; Read it first")
	}
	if _, fault := transport.Cause(err); err != nil && err != io.EOF && !fault {
		return nil, s.readError(err)
	}
	s.closed.Store(true)
	s.countEnd()
	s.transport.Release()
	return s.inner, nil
}

// How long Close may take to send what is queued: the user's data, or anything to a kernel's socket, which takes it as
// soon as it has room; or only a close_notify or a session ticket over something else, where it may be that nobody ever reads.
const (
	closeTimeout       = 5 * time.Second
	closeNotifyTimeout = 250 * time.Millisecond
)

// Close sends what is queued and close_notify (for 5 s at the most, what is not the user's data over what is no kernel socket
// for 250 ms; nothing after a fatal alert) and closes the inner stream, unless LeaveInnerOpen. It corresponds to
// SslStream.Dispose, which sends no close_notify. It never reads, and it unblocks pending calls, which return net.ErrClosed.
// It is idempotent: a second Close returns nil. The error is the inner stream's, or says that data written before could
// not be sent; a close_notify that could not is no error.
func (s *Stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.countEnd()
	var lost error
	deadline := time.Now().Add(closeTimeout)
	s.transport.Interrupt(net.ErrClosed)
	authenticated := s.phase.Load() == phaseAuthenticated && !s.unwrapped.Load()
	// The calls under way have been interrupted: the locks are free at once, unless inner does not heed its deadlines.
	if authenticated {
		if _, err := s.writing.take(context.Background(), closeTimeout); err == nil {
			lost = s.finish(deadline)
			s.writing.give()
		}
	}
	if !s.leaveOpen {
		err := s.inner.Close()
		s.ended.Store(authenticated)
		s.letGo()
		if err != nil {
			if lost != nil {
				err = errors.Join(lost, err)
			}
			return err
		}
	} else if authenticated {
		if _, err := s.reading.take(context.Background(), max(1, time.Until(deadline))); err == nil {
			s.transport.Release()
			s.reading.give()
		}
	}
	return lost
}

// letGo gives the memory of a closed stream back, unless a call that reads is still under way: then that does.
func (s *Stream) letGo() {
	if s.ended.Load() && s.reading.try() {
		s.transport.Release()
		s.reading.give()
	}
}

// finish sends the last of a session until the deadline; the caller holds writing.
func (s *Stream) finish(deadline time.Time) error {
	data := s.transport.UnsentData()
	timeout := max(1, time.Until(deadline))
	if !data && !s.transport.IsSocket() {
		timeout = min(timeout, closeNotifyTimeout)
	}
	if s.fatal.Load() != nil || s.failure.Load() != nil {
		if n, _ := s.transport.Unsent(); n == 0 {
			return nil
		}
		data = false // what counts is the alert
	} else {
		s.queueCloseNotify()
	}
	if err := s.transport.Finish(timeout); err != nil && data {
		return fmt.Errorf("sslstream: closed before what was written could be sent: %w", err)
	}
	return nil
}
