package sslstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"

	"github.com/sslstream/sslstream/internal/testpki"
)

// script is a net.Listener that accepts what it is told to.
type script struct {
	steps    chan step
	accepted atomic.Int32 // connections
	asked    chan time.Time
	once     sync.Once
	closed   chan struct{}
}

type step struct {
	conn net.Conn
	err  error
}

func newScript() *script {
	return &script{steps: make(chan step, 2000), asked: make(chan time.Time, 2000), closed: make(chan struct{})}
}

func (l *script) Accept() (net.Conn, error) {
	l.asked <- time.Now()
	select {
	case s := <-l.steps:
		if s.conn != nil {
			l.accepted.Add(1)
		}
		return s.conn, s.err
	case <-l.closed:
		return nil, errors.New("the script is over")
	}
}

func (l *script) Close() error {
	err := errors.New("closed twice")
	l.once.Do(func() {
		close(l.closed)
		err = nil
	})
	return err
}

func (l *script) Addr() net.Addr { return &net.UnixAddr{Name: "script", Net: "unix"} }

// connect adds a client, which says nothing, and returns its end.
func (l *script) connect() net.Conn {
	client, server := net.Pipe()
	l.steps <- step{conn: server}
	return client
}

// temporary is the error of an Accept that may be tried again.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return false }

// listen is a Listener on loopback, closed with the test.
func listen(t testing.TB, so *sslstream.ServerOptions, set ...func(*sslstream.Listener)) *sslstream.Listener {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := sslstream.NewListener(inner, so)
	for _, f := range set {
		f(l)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// acceptLater has one AcceptStream wait for its client.
func acceptLater(ctx context.Context, l *sslstream.Listener) <-chan acceptance {
	c := make(chan acceptance, 1)
	go func() {
		s, err := l.AcceptStream(ctx)
		c <- acceptance{s, err}
	}()
	return c
}

type acceptance struct {
	stream *sslstream.Stream
	err    error
}

func TestListenerAccepts(t *testing.T) {
	f := newFixture(t)
	l := listen(t, f.serverOptions())
	assert.Equal(t, "tcp", l.Addr().Network())
	accepted := acceptLater(testContext(t), l)
	client, err := sslstream.Dial(testContext(t), "tcp", l.Addr().String(), f.clientOptions())
	require.NoError(t, err)
	defer client.Close()
	server := <-accepted
	require.NoError(t, server.err)
	defer server.stream.Close()
	assert.True(t, server.stream.IsAuthenticated())
	assert.True(t, server.stream.IsServer())
	exchange(t, client, server.stream)

	go func() {
		if s, err := sslstream.Dial(testContext(t), "tcp", l.Addr().String(), f.clientOptions()); err == nil {
			s.Close()
		}
	}()
	conn, err := l.Accept()
	require.NoError(t, err)
	assert.IsType(t, &sslstream.Stream{}, conn)
	conn.Close()
}

// TestListenerHostileClients has every kind of bad client at once, over TCP; a good one comes through all the same.
func TestListenerHostileClients(t *testing.T) {
	f := newFixture(t)
	errs := make(chan error, 8)
	l := listen(t, f.serverOptions(), func(l *sslstream.Listener) {
		l.OnError = func(_ net.Conn, err error) { errs <- err }
	})
	accepted := acceptLater(testContext(t), l)
	for _, says := range []string{"", "", "\x16\x03\x01\x02\x00\x01", "\x16"} { // silent, and slow
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, says)
		require.NoError(t, err)
	}
	for _, says := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "\x15\x03\x01\x00\x02\x02\x28", "\xff\xff\xff\xff\xff\xff"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, says)
		require.NoError(t, err)
	}
	client, err := sslstream.Dial(testContext(t), "tcp", l.Addr().String(), f.clientOptions())
	require.NoError(t, err)
	defer client.Close()
	server := <-accepted
	require.NoError(t, server.err)
	defer server.stream.Close()
	exchange(t, client, server.stream)
	for range 4 {
		authenticationError(t, <-errs)
	}
}

func TestListenerHandshakeTimeout(t *testing.T) {
	for _, tc := range []struct {
		name    string
		timeout time.Duration
		want    time.Duration // 0: never
	}{
		{"zero", 0, 10 * time.Second},
		{"set", 3 * time.Second, 3 * time.Second},
		{"negative", -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t)
				inner := newScript()
				l := sslstream.NewListener(inner, f.serverOptions())
				l.HandshakeTimeout = tc.timeout
				errs := make(chan error, 1)
				l.OnError = func(_ net.Conn, err error) { errs <- err }
				accepted := acceptLater(context.Background(), l)
				began := time.Now()
				client := inner.connect()
				defer client.Close()
				select {
				case err := <-errs:
					assert.ErrorIs(t, err, context.DeadlineExceeded)
					assert.True(t, authenticationError(t, err).Transport)
					assert.Equal(t, tc.want, time.Since(began))
					_, err = client.Read(make([]byte, 1))
					assert.ErrorIs(t, err, io.EOF)
				case <-time.After(time.Hour):
					assert.Zero(t, tc.want)
				}
				l.Close()
				assert.ErrorIs(t, (<-accepted).err, net.ErrClosed)
			})
		})
	}
}

// TestListenerTimeoutBoundsCallbacks has a callback wait for its context.
func TestListenerTimeoutBoundsCallbacks(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, nil)
		l.ServerOptionsSelectionCallback = func(ctx context.Context, _ *sslstream.Stream, _ sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		l.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			time.Sleep(4 * time.Second)       // counts
			return context.WithoutCancel(ctx) // is bounded all the same
		}
		errs := make(chan error, 1)
		l.OnError = func(_ net.Conn, err error) { errs <- err }
		acceptLater(context.Background(), l)
		began := time.Now()
		client := sslstream.New(inner.connect())
		go client.AuthenticateAsClient(context.Background(), f.clientOptions())
		assert.ErrorIs(t, <-errs, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(began))
		l.Close()
		client.Close()
	})
}

func TestListenerMaxHandshakes(t *testing.T) {
	for _, tc := range []struct {
		name      string
		max, want int
	}{{"zero", 0, 1024}, {"set", 2, 2}} {
		t.Run(tc.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t)
				inner := newScript()
				l := sslstream.NewListener(inner, f.serverOptions())
				l.MaxHandshakes, l.HandshakeTimeout = tc.max, -1
				acceptLater(context.Background(), l)
				var clients []net.Conn
				for range tc.want + 3 {
					clients = append(clients, inner.connect())
				}
				synctest.Wait()
				assert.EqualValues(t, tc.want, inner.accepted.Load())
				clients[0].Close()
				synctest.Wait()
				assert.EqualValues(t, tc.want+1, inner.accepted.Load())
				l.Close()
				for _, c := range clients {
					c.Close()
				}
			})
		})
	}
}

// TestListenerBoundsWhatWaits: streams that nobody accepts count, so that they cannot pile up.
func TestListenerBoundsWhatWaits(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, f.serverOptions())
		l.MaxHandshakes = 2
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := l.AcceptStream(ctx) // starts it
		assert.ErrorIs(t, err, context.DeadlineExceeded)

		var clients []*sslstream.Stream
		for range 4 {
			client := sslstream.New(inner.connect())
			clients = append(clients, client)
			go client.AuthenticateAsClient(context.Background(), f.clientOptions())
		}
		synctest.Wait()
		assert.EqualValues(t, 2, inner.accepted.Load())
		for range 4 {
			s, err := l.AcceptStream(context.Background())
			require.NoError(t, err)
			s.Close()
		}
		assert.EqualValues(t, 4, inner.accepted.Load())
		l.Close()
		for _, client := range clients {
			client.Close()
		}
	})
}

// watched is a connection that knows whether it was closed.
type watched struct {
	net.Conn
	closed atomic.Bool
}

func (w *watched) Close() error {
	w.closed.Store(true)
	return w.Conn.Close()
}

func TestListenerOnError(t *testing.T) {
	for _, told := range []bool{true, false} {
		name := map[bool]string{true: "told", false: "dropped"}[told]
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t)
				inner := newScript()
				l := sslstream.NewListener(inner, f.serverOptions())
				a, b := net.Pipe()
				conn := &watched{Conn: b}
				calls := 0
				if told {
					l.OnError = func(c net.Conn, err error) {
						calls++
						assert.Same(t, conn, c)
						assert.False(t, conn.closed.Load(), "closed before OnError")
						assert.EqualValues(t, 42, authenticationError(t, err).RemoteAlert)
					}
				}
				accepted := acceptLater(context.Background(), l)
				inner.steps <- step{conn: conn}
				client := sslstream.New(a)
				co := f.clientOptions()
				co.TargetHost = "other.example"
				assert.Equal(t, sslstream.RemoteCertificateNameMismatch, authenticationError(t, client.AuthenticateAsClient(context.Background(), co)).PolicyErrors)
				synctest.Wait()
				assert.True(t, conn.closed.Load())
				assert.Equal(t, told, calls == 1)

				good := sslstream.New(inner.connect())
				require.NoError(t, good.AuthenticateAsClient(context.Background(), f.clientOptions()))
				server := <-accepted
				require.NoError(t, server.err)
				server.stream.Close()
				l.Close()
				client.Close()
				good.Close()
			})
		})
	}
}

type contextKey struct{}

func TestListenerConnContext(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(context.Context) context.Context
		want any
	}{
		{"a child", func(ctx context.Context) context.Context { return context.WithValue(ctx, contextKey{}, "a value") }, "a value"},
		{"another", func(context.Context) context.Context {
			return context.WithValue(context.Background(), contextKey{}, "a value")
		}, "a value"},
		{"nil", func(context.Context) context.Context { return nil }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t)
				inner := newScript()
				var options atomic.Bool // chosen, with the right context
				l := sslstream.NewListener(inner, nil)
				l.HandshakeTimeout = -1
				l.ServerOptionsSelectionCallback = func(ctx context.Context, _ *sslstream.Stream, _ sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
					options.Store(ctx.Value(contextKey{}) == tc.want)
					return f.serverOptions(), nil
				}
				l.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
					assert.NotNil(t, conn)
					return tc.make(ctx)
				}
				errs := make(chan error, 1)
				l.OnError = func(_ net.Conn, err error) { errs <- err }
				accepted := acceptLater(context.Background(), l)
				client := sslstream.New(inner.connect())
				require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
				server := <-accepted
				require.NoError(t, server.err)
				assert.True(t, options.Load())

				silent := inner.connect()
				synctest.Wait()
				l.Close() // ends a handshake also under a context that is no child
				assert.ErrorIs(t, <-errs, context.Canceled)
				_, err := silent.Read(make([]byte, 1))
				assert.ErrorIs(t, err, io.EOF)
				client.Close()
				server.stream.Close()
			})
		})
	}
}

func TestListenerChoosesOptions(t *testing.T) {
	f := newFixture(t)
	errNoHost := errors.New("no such host")
	l := listen(t, nil)
	errs := make(chan error, 1)
	l.OnError = func(_ net.Conn, err error) { errs <- err }
	l.ServerOptionsSelectionCallback = func(_ context.Context, _ *sslstream.Stream, hello sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
		switch hello.ServerName {
		case serverName:
			return f.serverOptions(), nil
		case "broken.example":
			return &sslstream.ServerOptions{}, nil // a configuration error, but only this client's
		}
		return nil, errNoHost
	}
	accepted := acceptLater(testContext(t), l)
	dial := func(host string) (*sslstream.Stream, error) {
		co := f.clientOptions()
		co.TargetHost = host
		return sslstream.Dial(testContext(t), "tcp", l.Addr().String(), co)
	}
	_, err := dial("other.example")
	authenticationError(t, err)
	assert.ErrorIs(t, <-errs, errNoHost)
	_, err = dial("broken.example")
	authenticationError(t, err)
	authenticationError(t, <-errs)
	client, err := dial(serverName)
	require.NoError(t, err)
	defer client.Close()
	server := <-accepted
	require.NoError(t, server.err)
	defer server.stream.Close()
	assert.Equal(t, serverName, server.stream.TargetHostName())
}

// TestListenerAcceptContext: a call that ends loses nobody.
func TestListenerAcceptContext(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, f.serverOptions())
		ended, cancel := context.WithCancel(context.Background())
		waiting := acceptLater(ended, l)
		synctest.Wait()
		cancel()
		assert.ErrorIs(t, (<-waiting).err, context.Canceled)
		client := sslstream.New(inner.connect())
		require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
		synctest.Wait()
		_, err := l.AcceptStream(ended)
		assert.ErrorIs(t, err, context.Canceled)
		var never context.Context
		s, err := l.AcceptStream(never)
		require.NoError(t, err)
		exchange(t, client, s)
		l.Close()
		client.Close()
		s.Close()
	})
}

// TestListenerResumes: one options value is what makes resumption work.
func TestListenerResumes(t *testing.T) {
	f := newFixture(t)
	l := listen(t, f.serverOptions())
	co := f.clientOptions()
	for i := range 3 {
		accepted := acceptLater(testContext(t), l)
		client, err := sslstream.Dial(testContext(t), "tcp", l.Addr().String(), co)
		require.NoError(t, err)
		server := <-accepted
		require.NoError(t, server.err)
		exchange(t, client, server.stream)
		assert.Equal(t, i > 0, client.Security().Resumed)
		client.Close()
		server.stream.Close()
	}
}

// pipeDialer connects to a script.
type pipeDialer struct{ to *script }

func (d pipeDialer) DialContext(context.Context, string, string) (net.Conn, error) {
	return d.to.connect(), nil
}

// TestListenerManyClients has more clients than MaxHandshakes at once, and several who accept.
func TestListenerManyClients(t *testing.T) {
	f := newFixture(t)
	inner := newScript()
	l := sslstream.NewListener(inner, f.serverOptions())
	l.MaxHandshakes = 4
	var servers, clients sync.WaitGroup
	for range 3 {
		servers.Go(func() {
			for {
				s, err := l.AcceptStream(testContext(t))
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				servers.Go(func() {
					io.Copy(s, s)
					s.Close()
				})
			}
		})
	}
	dialer := &sslstream.Dialer{NetDialer: pipeDialer{inner}, Options: f.clientOptions()}
	for range 40 {
		clients.Go(func() {
			conn, err := dialer.DialContext(testContext(t), "tcp", "server.example:443")
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "hello"); !assert.NoError(t, err) {
				return
			}
			answer := make([]byte, 5)
			_, err = io.ReadFull(conn, answer)
			assert.NoError(t, err)
			assert.Equal(t, "hello", string(answer))
		})
	}
	clients.Wait()
	l.Close()
	servers.Wait()
}
