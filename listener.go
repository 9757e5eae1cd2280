package sslstream

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// This file answers how connections come to be streams: a server's from a listener, a client's by dialing.

// The zero values of a Listener's fields.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHandshakes    = 1024
)

// How long to wait after a temporary error of the inner listener's Accept: as net/http does.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// Listener is a net.Listener that hands out streams that are authenticated already. Handshakes run side by side, each on
// a goroutine of its own, so that a silent, slow or hostile client holds up nobody. Make one with NewListener and set the
// fields before the first Accept; its methods are safe for concurrent use. SslStream has no counterpart.
//
// Nothing is accepted before the first Accept or AcceptStream. From then on connections are accepted, and shake hands, also
// while nobody waits for one, up to MaxHandshakes of them. Close must be called, also after an error: it ends the goroutines.
//
// Callbacks run on the handshakes' goroutines. A panic in one is not recovered and ends the program, where net/http would
// log it and go on: a callback that may panic has to recover.
//
// It serves net/http, which sets Request.TLS, over HTTP/1.1; net/http speaks HTTP/2 over a *tls.Conn only, so "h2" must not
// be among the application protocols there. For HTTP/2 see examples/https.
type Listener struct {
	// HandshakeTimeout bounds each handshake, the callbacks in it included as far as they heed their context; zero: 10 s;
	// negative: none. What it ends is context.DeadlineExceeded.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the connections that shake hands, and those that have and wait for Accept, at once; zero: 1024.
	// Further connections wait to be accepted from the inner listener. Negative is a configuration error.
	MaxHandshakes int
	// OnError is told of each failed handshake, those that Close ends included (context.Canceled); nil: they are dropped.
	// conn is the inner listener's connection, still open, and closed after it. It is called on the handshake's goroutine,
	// several at once, and counts as a part of the handshake for MaxHandshakes.
	OnError func(conn net.Conn, err error)

	// ServerOptionsSelectionCallback chooses the options for each client, as AuthenticateAsServerFunc's does, instead of
	// NewListener's: both are a configuration error. Its error, and what is wrong with the options it chose, is that
	// handshake's, and goes to OnError.
	ServerOptionsSelectionCallback ServerOptionsSelectionCallback
	// ConnContext makes the handshake's context of ctx, which ends with Close: it may carry values for the callbacks. nil,
	// or a nil result: ctx itself. Close and HandshakeTimeout end the handshake whatever it returns. It is called on the
	// handshake's goroutine.
	ConnContext func(ctx context.Context, conn net.Conn) context.Context

	inner net.Listener // nil: NewListener was given none, or not called
	opts  *ServerOptions

	start   sync.Once
	slots   chan struct{} // one is held by each connection that is not handed over yet; made by start
	results chan accepted
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	end     sync.Once
}

// accepted is what one Accept returns.
type accepted struct {
	stream *Stream
	err    error
}

var _ net.Listener = (*Listener)(nil)

// NewListener makes a listener of inner, which it owns from then on. opts are as in AuthenticateAsServer; sharing one value
// is what makes resumption work. They are nil where a ServerOptionsSelectionCallback is set. It does nothing until Accept.
func NewListener(inner net.Listener, opts *ServerOptions) *Listener {
	l := &Listener{inner: inner, opts: opts, results: make(chan accepted)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Accept returns the next client whose handshake succeeded; the connection is a *Stream. See AcceptStream.
func (l *Listener) Accept() (net.Conn, error) {
	s, err := l.AcceptStream(context.Background())
	if err != nil {
		return nil, err
	}
	return s, nil
}

// AcceptStream is Accept until ctx ends: it then returns ctx's error, and a client that comes later is the next call's. A
// nil ctx never ends. After Close it returns net.ErrClosed.
//
// A configuration error, in the fields or the options, is returned at once, and before anything is accepted, by every call
// until it is corrected. Where a later SetSecurityProtocol leaves the options without a protocol, a call that waits returns
// it with the next client.
//
// A temporary error of the inner listener's (one with a Temporary method that says so, such as that of a process that is out
// of file descriptors) is not returned: accepting is tried again after 5 ms, then after twice that each time, up to 1 s. A
// deadline on the inner listener is such an error too; use ctx instead. Any other error is returned by one call, and the
// next call accepts again.
func (l *Listener) AcceptStream(ctx context.Context) (*Stream, error) {
	ctx = orBackground(ctx)
	if l.inner == nil {
		return nil, errors.New("sslstream: the Listener has no inner listener; make it with NewListener, of one")
	}
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.start.Do(func() {
		n := l.MaxHandshakes
		if n == 0 {
			n = defaultMaxHandshakes
		}
		l.slots = make(chan struct{}, n)
		go l.acceptInner()
	})
	select {
	case next := <-l.results:
		return next.stream, next.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Addr is the inner listener's address; a placeholder where there is none, never nil.
func (l *Listener) Addr() net.Addr {
	if l.inner == nil {
		return New(nil).LocalAddr()
	}
	return l.inner.Addr()
}

// Close closes the inner listener and returns its error, ends the handshakes under way, closes the streams that nobody
// has accepted, and unblocks Accept, which returns net.ErrClosed. Streams that were accepted go on. It does not wait for
// callbacks, which may call it; their goroutines end when they return. It is idempotent: a second Close returns nil.
func (l *Listener) Close() error {
	if l.inner == nil {
		return nil
	}
	var err error
	l.end.Do(func() {
		l.cancel()
		err = l.inner.Close()
	})
	return err
}

// check finds the configuration errors that every handshake would meet.
func (l *Listener) check() error {
	switch {
	case l.MaxHandshakes < 0:
		return errors.New("sslstream: Listener.MaxHandshakes is negative; it cannot be without bound")
	case l.ServerOptionsSelectionCallback != nil && l.opts != nil:
		return conflict("the choice of options", "NewListener", "Listener.ServerOptionsSelectionCallback")
	case l.ServerOptionsSelectionCallback != nil:
		return nil
	case l.opts == nil:
		return errors.New("sslstream: the Listener has no options; give NewListener some, or set ServerOptionsSelectionCallback")
	}
	settings, err := l.opts.compile()
	if err != nil {
		return err
	}
	if _, err = settings.protocols(); err != nil {
		l.opts.compiled.forget(settings)
	}
	return err
}

// acceptInner accepts connections until Close, and starts their handshakes.
func (l *Listener) acceptInner() {
	for pause := time.Duration(0); ; {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		conn, err := l.inner.Accept()
		if conn == nil && err == nil {
			err = errors.New("sslstream: the inner listener accepted no connection and returned no error")
		}
		if err == nil {
			pause = 0
			go l.handshake(conn)
			continue
		}
		<-l.slots
		if l.ctx.Err() != nil {
			return
		}
		// net.Error's Temporary is deprecated because it is vague, but Accept's is what tells a lack of descriptors.
		if t, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !t.Temporary() {
			pause = 0
			if !l.hand(accepted{err: err}) {
				return
			}
			continue
		}
		pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// hand hands over to an Accept; false after Close.
func (l *Listener) hand(next accepted) bool {
	select {
	case l.results <- next:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// handshake is one connection, until it is handed over or closed. What it holds it gives back also where a callback
// ends the goroutine.
func (l *Listener) handshake(conn net.Conn) {
	defer func() { <-l.slots }()
	s, handed := New(conn), false
	defer func() {
		if !handed {
			s.Close()
		}
	}()
	err := l.authenticate(s, conn)
	if err == nil {
		handed = l.hand(accepted{stream: s})
		return
	}
	if l.OnError != nil {
		l.OnError(conn, err)
	}
	if _, failed := err.(*AuthenticationError); !failed {
		s.Close() // at once, not only when somebody takes the configuration error
		l.hand(accepted{err: err})
	}
}

func (l *Listener) authenticate(s *Stream, conn net.Conn) error {
	timeout := l.HandshakeTimeout
	if timeout == 0 {
		timeout = defaultHandshakeTimeout
	}
	began, ctx := time.Now(), l.ctx
	if l.ConnContext != nil {
		if made := l.ConnContext(ctx, conn); made != nil {
			ctx = made
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)() // it may not be a child of l.ctx
	if timeout > 0 {
		ctx, cancel = context.WithDeadline(ctx, began.Add(timeout))
		defer cancel()
	}
	if l.ServerOptionsSelectionCallback != nil {
		return s.AuthenticateAsServerFunc(ctx, l.ServerOptionsSelectionCallback)
	}
	return s.AuthenticateAsServer(ctx, l.opts)
}

// Dialer connects and authenticates as a client. It may be used by many goroutines at once. SslStream has no
// counterpart; its callers connect a TcpClient first.
//
// The host of the address is the target host where Options, or their TLSConfig, name none, so that one value serves many
// hosts and its session cache is shared by them. An address without a host, and one of a Unix socket, names none: then the
// Options have to, or a callback accept the certificate.
//
// DialContext is a DialTLSContext for net/http's Transport, which speaks HTTP/1.1 over it: do not offer "h2" there.
type Dialer struct {
	// NetDialer connects; nil: a net.Dialer.
	NetDialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	}
	// Options are AuthenticateAsClient's; nil: all defaults. They own the session cache: without them nothing is resumed.
	Options *ClientOptions
}

// DialContext connects to the address and authenticates; the connection is a *Stream. network and address are
// net.Dialer's. ctx bounds both steps, and does not matter to the stream afterwards; without a deadline in it a server that
// says nothing is waited for as long as it lives. A nil ctx never ends.
//
// A configuration error in Options is returned before anything is connected, an error of the NetDialer's as it is, and a
// failed handshake as an *AuthenticationError; the connection is closed then.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	s, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (d *Dialer) dial(ctx context.Context, network, address string) (*Stream, error) {
	ctx = orBackground(ctx)
	opts := d.Options
	if opts == nil {
		opts = &ClientOptions{}
	}
	host, err := dialedHost(opts, network, address)
	if err != nil {
		return nil, err
	}
	connect := d.NetDialer
	if connect == nil {
		connect = &net.Dialer{}
	}
	conn, err := connect.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s, done := New(conn, WithTargetHost(host)), false
	defer func() {
		if !done { // also where a callback panics
			s.Close()
		}
	}()
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return nil, err
	}
	done = true
	return s, nil
}

// dialedHost is the target host that the address adds to the options: "" where they name one, or it has none. It finds
// the configuration errors in the options.
func dialedHost(opts *ClientOptions, network, address string) (string, error) {
	settings, err := opts.compile()
	if err != nil {
		return "", err
	}
	if _, err := settings.protocols(); err != nil {
		opts.compiled.forget(settings)
		return "", err
	}
	if settings.host.given != "" || strings.HasPrefix(network, "unix") {
		return "", nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", nil // the NetDialer's to refuse, or to understand
	}
	if _, err := parseTargetHost(host); err != nil {
		return "", err
	}
	return host, nil
}

// Dial connects to the address and authenticates: it is the DialContext of a Dialer with these Options.
func Dial(ctx context.Context, network, address string, opts *ClientOptions) (*Stream, error) {
	return (&Dialer{Options: opts}).dial(ctx, network, address)
}
