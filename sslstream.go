package sslstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sslstream/sslstream/internal/transport"
)

// Stream is TLS over any io.ReadWriteCloser, and a net.Conn. It corresponds to SslStream. Make one with New and
// authenticate it with AuthenticateAsClient, AuthenticateAsServer or AuthenticateAsServerFunc, which can be tried once.
//
// Its methods are safe for concurrent use; reads wait for reads, and writes for writes.
//
// State errors: before a successful authentication Read, Write, Flush, CloseWrite, Unwrap and Detach return
// ErrNotAuthenticated; after a failed one they return that same *AuthenticationError; after Close or Detach,
// net.ErrClosed; Write after CloseWrite or Unwrap returns ErrWriteClosed.
//
// On the wire a flight of the handshake is one Write of the inner stream, and when AuthenticateAsClient returns nothing
// of it is still to be written. A Write of up to 16 KiB is one Write of the inner stream, and one record unless a TLSConfig
// leaves dynamic record sizing on, or TLS 1.0 splits it because of its CBC (BEAST). Of deadline, timeout and context the earliest wins.
type Stream struct {
	inner     io.ReadWriteCloser
	transport *transport.Conn
	leaveOpen bool
	host      string // WithTargetHost
	validate  RemoteCertificateValidationCallback
	choose    LocalCertificateSelectionCallback
	invalid   error // what is wrong with New's arguments, for the authentication to tell

	phase   atomic.Int32
	closed  atomic.Bool   // Close or Detach was called
	ended   atomic.Bool   // Close is done with a session, and closed inner
	open    atomic.Uint32 // the version by which the session is counted as open; 0: it is not
	failure atomic.Pointer[AuthenticationError]
	role    atomic.Pointer[role]
	session atomic.Pointer[session] // nil before there is one; stored again when more is known
	tls     *tls.Conn               // set once phase is authenticated, like what follows
	attempt *authentication

	reading, writing          lock
	readTimeout, writeTimeout atomic.Int64

	// Guarded by reading.
	unread []byte // plaintext that Detach found

	// Set while reading and writing are held.
	unwrapped atomic.Bool // inner was given back

	gotData     atomic.Bool // the peer's application data: it accepted us
	writeClosed atomic.Bool // close_notify was sent, or is queued
	closeNotify atomic.Bool // the peer's arrived
	fatal       atomic.Pointer[error]
}

// The phases of a stream, in order.
const (
	phaseNew int32 = iota
	phaseAuthenticating
	phaseAuthenticated
	phaseFailed
)

// role is what is known of an authentication from its beginning.
type role struct {
	server     bool
	targetHost string
	revocation RevocationMode
}

// Option is a setting of New.
type Option func(*Stream)

// LeaveInnerOpen keeps Close from closing the inner stream. It corresponds to the constructor's
// leaveInnerStreamOpen. It also makes the stream never read past the last TLS record it needs: after Unwrap the next byte
// read from the inner stream is the first byte after the peer's close_notify.
func LeaveInnerOpen() Option { return func(s *Stream) { s.leaveOpen = true } }

// WithTargetHost names the server where the options of AuthenticateAsClient don't, so that one options value and its
// session cache can serve many hosts. A different name in both is a configuration error.
func WithTargetHost(host string) Option { return func(s *Stream) { s.host = host } }

// WithRemoteCertificateValidationCallback sets the callback that validates the peer's certificate. It corresponds to
// the constructor's userCertificateValidationCallback. A callback here and also in the options of the authentication is a
// configuration error, returned by that authentication before anything is sent; AuthenticateAsServerFunc, which has the
// options only later, fails with it.
func WithRemoteCertificateValidationCallback(cb RemoteCertificateValidationCallback) Option {
	return func(s *Stream) { s.validate = cb }
}

// WithLocalCertificateSelectionCallback sets the callback that picks the client's certificate. It corresponds to the
// constructor's userCertificateSelectionCallback. A callback here and also in the options of the authentication is a
// configuration error, returned by that authentication before anything is sent. A server has no use for one, which is a
// configuration error too.
func WithLocalCertificateSelectionCallback(cb LocalCertificateSelectionCallback) Option {
	return func(s *Stream) { s.choose = cb }
}

// New makes a stream over inner. It corresponds to SslStream's constructors and does no I/O. inner need not have
// deadlines, addresses or a buffer to flush; where it has them (SetReadDeadline, SetWriteDeadline, LocalAddr,
// RemoteAddr, Flush) they are used. Where they must not be, wrap inner in a struct that has Read, Write and Close only.
// Each method of inner is called by one goroutine at a time, Close and the deadlines besides.
//
// A nil inner is a configuration error, which the authentication returns.
func New(inner io.ReadWriteCloser, opts ...Option) *Stream {
	s := &Stream{inner: inner}
	if inner == nil {
		s.inner = noInner{}
		s.invalid = errors.New("sslstream: New was given no inner stream")
	}
	for _, opt := range opts {
		if opt != nil {
			opt(s)
		}
	}
	s.transport = transport.New(s.inner, s.leaveOpen)
	return s
}

// noInner stands in for a nil inner stream, so that no method of a Stream panics.
type noInner struct{}

func (noInner) Read([]byte) (int, error)  { return 0, net.ErrClosed }
func (noInner) Write([]byte) (int, error) { return 0, net.ErrClosed }
func (noInner) Close() error              { return nil }

var (
	_ net.Conn      = (*Stream)(nil)
	_ io.ReaderFrom = (*Stream)(nil)
	_ io.WriterTo   = (*Stream)(nil)
)

// The errors of a Stream's state, to be told with errors.Is. net.ErrClosed is one of them too.
var (
	ErrNotAuthenticated     = errors.New("sslstream: stream is not authenticated")
	ErrAlreadyAuthenticated = errors.New("sslstream: authentication was already attempted on this stream")
	ErrWriteClosed          = errors.New("sslstream: write after CloseWrite")
)

// usable returns the error of a state in which there is no session to use.
func (s *Stream) usable() error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	if failure := s.failure.Load(); failure != nil {
		return failure
	}
	if s.phase.Load() != phaseAuthenticated {
		return ErrNotAuthenticated
	}
	return nil
}

// Read reads decrypted data: it waits for at least one byte, and fills p with what else is there already. io.EOF is the peer's close_notify, and also
// the inner stream's end between two records unless RequireCloseNotify (see ReceivedCloseNotify); io.ErrUnexpectedEOF is
// an end inside a record. Where the deadline or ReadTimeout expires it returns os.ErrDeadlineExceeded, and where the
// inner stream fails that error; reading can be tried again after either.
func (s *Stream) Read(p []byte) (int, error) { return s.ReadContext(context.Background(), p) }

// orBackground lets nil be a context that never ends.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// ReadContext is Read until ctx ends: it then returns ctx's error, and the stream stays usable. A nil ctx never ends.
func (s *Stream) ReadContext(ctx context.Context, p []byte) (int, error) {
	ctx = orBackground(ctx)
	timeout := s.ReadTimeout()
	if !s.reading.try() {
		if err := s.usable(); err != nil {
			return 0, err
		}
		var err error
		if timeout, err = s.reading.take(ctx, timeout); err != nil {
			return 0, err
		}
	}
	defer s.doneReading()
	return s.readLocked(ctx, timeout, p)
}

func (s *Stream) doneReading() {
	s.reading.give()
	if s.ended.Load() {
		s.letGo()
	}
}

// readLocked is one read; the caller holds reading.
func (s *Stream) readLocked(ctx context.Context, timeout time.Duration, p []byte) (n int, err error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	err = s.transport.BeginRead(ctx, timeout)
	defer s.transport.EndRead()
	if err != nil {
		return 0, err
	}
	if len(s.unread) > 0 {
		n = copy(p, s.unread)
		s.unread = s.unread[n:]
		return n, nil
	}
	if fatal := s.fatal.Load(); fatal != nil {
		return 0, *fatal
	}
	n, err = s.tls.Read(p)
	if n > 0 && !s.gotData.Load() {
		s.gotData.Store(true)
	}
	// What else is there already saves the next calls their way; an error in it is theirs to meet.
	// A renegotiation must not begin so: it has to read what may not be there yet.
	for err == nil && n < len(p) && s.transport.Ready() && !s.attempt.settings.renegotiates {
		k, later := s.transport.Dry(func() (int, error) { return s.tls.Read(p[n:]) })
		n += k
		if later != nil {
			break
		}
	}
	if err != nil {
		err = s.readError(err)
	}
	if s.attempt.settings.renegotiates && s.transport.Replied() {
		if unmet := s.attempt.renegotiated(); unmet != nil {
			s.fatal.Store(&unmet)
			return 0, unmet
		}
	}
	return n, err
}

// readError tells apart what crypto/tls's Read returns: an end, an error of inner or of a limit, and the fatal ones.
func (s *Stream) readError(err error) error {
	if err == io.EOF {
		if !s.transport.EOF() {
			s.closeNotify.Store(true)
		} else if s.attempt.settings.requireCloseNotify {
			return io.ErrUnexpectedEOF
		}
		return io.EOF
	}
	if cause, fault := transport.Cause(err); fault {
		return cause
	}
	if err == io.ErrUnexpectedEOF {
		return err
	}
	if alert := alertOf(err); alert != 0 && !s.IsServer() && !s.gotData.Load() {
		// A server that refuses the client after the client's part of the handshake is over can say so only now:
		// in TLS 1.3 always (RFC 8446, Section 4.6.2 has the order), before in a resumed handshake.
		s.attempt.sessions.forget() // a session that the server refuses would be refused again
		failure := s.newAuthenticationError(err)
		failure.RemoteAlert = alert
		s.failure.CompareAndSwap(nil, failure)
		s.countEnd()
		return s.failure.Load()
	}
	s.fatal.Store(&err)
	return err
}

// Write encrypts and sends p. n counts the bytes accepted: all of them have been sent, or are queued where an error cut
// the call short. After the deadline, WriteTimeout (os.ErrDeadlineExceeded), or an error of the inner stream, going on
// with p[n:], or with Flush, delivers exactly what was written.
func (s *Stream) Write(p []byte) (int, error) { return s.WriteContext(context.Background(), p) }

// WriteContext is Write until ctx ends: it then returns ctx's error, and the stream stays usable. A nil ctx never ends.
func (s *Stream) WriteContext(ctx context.Context, p []byte) (n int, err error) {
	if s.usable() == nil && s.writeClosed.Load() { // whatever the deadline, and without waiting for anybody
		return 0, ErrWriteClosed
	}
	err = s.write(ctx, func() error {
		if s.writeClosed.Load() {
			return ErrWriteClosed
		}
		if len(p) == 0 {
			return nil
		}
		if err := s.transport.Send(); err != nil {
			return err
		}
		for n < len(p) {
			piece := p[n:min(len(p), n+transport.BatchSize)]
			s.transport.BeginData(len(piece))
			k, err := s.tls.Write(piece)
			s.transport.EndData()
			n += k
			if err != nil {
				return err
			}
			if err := s.transport.Send(); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// write runs f as a call that writes.
func (s *Stream) write(ctx context.Context, f func() error) error {
	ctx = orBackground(ctx)
	timeout := s.WriteTimeout()
	if !s.writing.try() {
		if err := s.usable(); err != nil {
			return err
		}
		var err error
		if timeout, err = s.writing.take(ctx, timeout); err != nil {
			return err
		}
	}
	defer s.writing.give()
	if err := s.usable(); err != nil {
		return err
	}
	if fatal := s.fatal.Load(); fatal != nil {
		return *fatal
	}
	err := s.transport.BeginWrite(ctx, timeout)
	defer s.transport.EndWrite()
	if err != nil {
		return err
	}
	return f()
}

// Flush sends what an expired deadline left behind, and flushes the inner stream where it has a Flush. It corresponds
// to SslStream.Flush.
func (s *Stream) Flush() error {
	return s.write(context.Background(), func() error {
		if s.unwrapped.Load() {
			return nil
		}
		return s.transport.Flush()
	})
}

// LocalAddr is the inner stream's, or a placeholder; never nil.
func (s *Stream) LocalAddr() net.Addr { return s.transport.LocalAddr() }

// RemoteAddr is the inner stream's, or a placeholder; never nil.
func (s *Stream) RemoteAddr() net.Addr { return s.transport.RemoteAddr() }

// SetDeadline is SetReadDeadline and SetWriteDeadline. Deadlines work for every inner stream, also for one without.
func (s *Stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds pending and later reads, and those of an authentication; zero: none. Expiry is
// os.ErrDeadlineExceeded, and leaves an authenticated stream usable. It fails on a closed stream only.
func (s *Stream) SetReadDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.transport.SetReadDeadline(t)
	return nil
}

// SetWriteDeadline bounds pending and later writes, and those of an authentication; zero: none. Expiry is
// os.ErrDeadlineExceeded, and leaves an authenticated stream usable: see Write. It fails on a closed stream only.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.transport.SetWriteDeadline(t)
	return nil
}

// ReadTimeout is the bound on each Read, and on each read of an authentication; 0: none. It corresponds to
// SslStream.ReadTimeout, except that the stream stays usable after it.
func (s *Stream) ReadTimeout() time.Duration { return time.Duration(s.readTimeout.Load()) }

// SetReadTimeout sets ReadTimeout for calls to come; 0 or less: none.
func (s *Stream) SetReadTimeout(d time.Duration) { s.readTimeout.Store(int64(max(d, 0))) }

// WriteTimeout is the bound on each Write, and on each write of an authentication; 0: none. It corresponds to
// SslStream.WriteTimeout, except that the stream stays usable after it.
func (s *Stream) WriteTimeout() time.Duration { return time.Duration(s.writeTimeout.Load()) }

// SetWriteTimeout sets WriteTimeout for calls to come; 0 or less: none.
func (s *Stream) SetWriteTimeout(d time.Duration) { s.writeTimeout.Store(int64(max(d, 0))) }

// Inner is the stream that New was given. It corresponds to InnerStream. Using it while TLS does breaks the session.
func (s *Stream) Inner() io.ReadWriteCloser { return s.inner }

// LeavesInnerOpen reports whether Close leaves the inner stream open. It corresponds to LeaveInnerStreamOpen.
func (s *Stream) LeavesInnerOpen() bool { return s.leaveOpen }

// CanRead reports whether the stream is authenticated and not closed. It corresponds to SslStream.CanRead.
func (s *Stream) CanRead() bool { return s.usable() == nil }

// CanWrite reports whether the stream is authenticated, not closed and not shut down by CloseWrite or Unwrap. It
// corresponds to SslStream.CanWrite.
func (s *Stream) CanWrite() bool { return s.usable() == nil && !s.writeClosed.Load() }

// CanTimeout is true: timeouts work for every inner stream. It corresponds to SslStream.CanTimeout.
func (s *Stream) CanTimeout() bool { return true }

// IsAuthenticated reports whether the authentication succeeded and the stream is not closed. It corresponds to
// SslStream.IsAuthenticated.
func (s *Stream) IsAuthenticated() bool { return s.usable() == nil }

// IsMutuallyAuthenticated reports whether both sides showed a certificate: this side's was really used and the peer's
// is present. It is right on resumed sessions too. It corresponds to SslStream.IsMutuallyAuthenticated.
func (s *Stream) IsMutuallyAuthenticated() bool {
	return s.IsAuthenticated() && s.session.Load().mutual()
}

// IsEncrypted is IsAuthenticated: there are no unencrypted sessions. It corresponds to SslStream.IsEncrypted.
func (s *Stream) IsEncrypted() bool { return s.IsAuthenticated() }

// IsSigned is IsAuthenticated: every session protects the integrity of its data. It corresponds to SslStream.IsSigned.
func (s *Stream) IsSigned() bool { return s.IsAuthenticated() }

// IsServer reports whether the stream was authenticated, or tried to, as a server. It corresponds to SslStream.IsServer.
func (s *Stream) IsServer() bool {
	r := s.role.Load()
	return r != nil && r.server
}

// CheckCertRevocationStatus reports whether the revocation mode asked for is not RevocationNoCheck. It corresponds to
// SslStream.CheckCertRevocationStatus; it is false before an authentication.
func (s *Stream) CheckCertRevocationStatus() bool {
	r := s.role.Load()
	return r != nil && r.revocation != RevocationNoCheck
}

// TargetHostName is the server's name. A client's is as it was given; a server's is the name that the client sent,
// decoded from punycode (what does not decode stays as sent), or "". It corresponds to SslStream.TargetHostName.
func (s *Stream) TargetHostName() string {
	if r := s.role.Load(); r != nil {
		return r.targetHost
	}
	return ""
}

// ReceivedCloseNotify reports whether Read has met the peer's close_notify, which tells an orderly end from a
// truncation. SslStream has no counterpart.
func (s *Stream) ReceivedCloseNotify() bool { return s.closeNotify.Load() }
