package sslstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"

	"github.com/sslstream/sslstream/internal/testpki"
)

// TestListenerConfigurationErrors: none of them lets a connection be accepted, and one that is corrected is gone.
func TestListenerConfigurationErrors(t *testing.T) {
	f := newFixture(t)
	chooses := func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
		return f.serverOptions(), nil
	}
	for _, tc := range []struct {
		name string
		opts *sslstream.ServerOptions
		set  func(*sslstream.Listener)
		want string
	}{
		{"no options", nil, nil, "no options"},
		{"no certificate", &sslstream.ServerOptions{}, nil, "certificate"},
		{"SSL 3", &sslstream.ServerOptions{ServerCertificate: &f.server, EnabledProtocols: sslstream.ProtocolSSL3}, nil, "SSL3"},
		{"no protocol left", &sslstream.ServerOptions{
			ServerCertificate: &f.server, EnabledProtocols: sslstream.ProtocolTLS12, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
		}, nil, "TLS12"},
		{"two sources of options", f.serverOptions(), func(l *sslstream.Listener) { l.ServerOptionsSelectionCallback = chooses }, "give it once"},
		{"negative MaxHandshakes", f.serverOptions(), func(l *sslstream.Listener) { l.MaxHandshakes = -1 }, "MaxHandshakes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inner := newScript()
			l := sslstream.NewListener(inner, tc.opts)
			if tc.set != nil {
				tc.set(l)
			}
			for range 2 {
				conn, err := l.Accept()
				assert.ErrorContains(t, err, tc.want)
				assert.Nil(t, conn)
			}
			assert.Empty(t, inner.asked)
			assert.NoError(t, l.Close())
			_, err := l.Accept()
			assert.ErrorIs(t, err, net.ErrClosed)
		})
	}
	t.Run("corrected", func(t *testing.T) {
		so := &sslstream.ServerOptions{}
		l := listen(t, so)
		_, err := l.Accept()
		require.Error(t, err)
		*so = sslstream.ServerOptions{ServerCertificate: &f.server}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err = l.AcceptStream(ctx)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
	for name, l := range map[string]*sslstream.Listener{"no inner listener": sslstream.NewListener(nil, f.serverOptions()), "no NewListener": {}} {
		t.Run(name, func(t *testing.T) {
			_, err := l.Accept()
			assert.ErrorContains(t, err, "NewListener")
			assert.NotNil(t, l.Addr())
			assert.NoError(t, l.Close())
		})
	}
}

// TestListenerConfigurationErrorLater has a configuration error come up while an Accept waits.
func TestListenerConfigurationErrorLater(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		so := f.serverOptions()
		so.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256}
		inner := newScript()
		l := sslstream.NewListener(inner, so)
		told := make(chan error, 1)
		l.OnError = func(_ net.Conn, err error) { told <- err }
		accepted := acceptLater(context.Background(), l)
		synctest.Wait()
		require.NoError(t, sslstream.SetSecurityProtocol(sslstream.ProtocolTLS12))
		defer sslstream.SetSecurityProtocol(sslstream.ProtocolSystemDefault)
		client := inner.connect()
		got := (<-accepted).err
		assert.ErrorContains(t, got, "TLS12")
		assert.Equal(t, got, <-told)
		_, err := client.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		_, err = inner.connect().Read(make([]byte, 1)) // although nobody waits for its error
		assert.ErrorIs(t, err, io.EOF)
		assert.Equal(t, got.Error(), (<-told).Error())
		_, err = l.Accept()
		assert.ErrorContains(t, err, "TLS12")
		l.Close()
	})
}

// TestListenerClose: the bubble would not end if a goroutine or a stream were left.
func TestListenerClose(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, f.serverOptions())
		l.HandshakeTimeout = -1
		errs := make(chan error, 10)
		l.OnError = func(_ net.Conn, err error) {
			l.Close() // may be called here
			errs <- err
		}
		accepted := acceptLater(context.Background(), l)
		kept := sslstream.New(inner.connect())
		require.NoError(t, kept.AuthenticateAsClient(context.Background(), f.clientOptions()))
		server := <-accepted
		require.NoError(t, server.err)

		unaccepted := sslstream.New(inner.connect())
		require.NoError(t, unaccepted.AuthenticateAsClient(context.Background(), f.clientOptions()))
		silent := inner.connect()
		synctest.Wait()
		require.EqualValues(t, 3, inner.accepted.Load())

		require.NoError(t, l.Close())
		_, err := unaccepted.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		assert.True(t, unaccepted.ReceivedCloseNotify())
		_, err = silent.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		err = <-errs
		assert.ErrorIs(t, err, context.Canceled)
		assert.True(t, authenticationError(t, err).Transport)
		synctest.Wait()
		assert.Empty(t, errs)

		assert.NoError(t, l.Close())
		_, err = l.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
		_, err = inner.Accept()
		assert.ErrorContains(t, err, "the script is over")
		exchange(t, kept, server.stream)
		kept.Close()
		unaccepted.Close()
		server.stream.Close()
	})
}

func TestListenerCloseUnblocksAccept(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		l := sslstream.NewListener(newScript(), f.serverOptions())
		var waiting []<-chan acceptance
		for range 3 {
			waiting = append(waiting, acceptLater(context.Background(), l))
		}
		synctest.Wait()
		require.NoError(t, l.Close())
		for _, c := range waiting {
			assert.ErrorIs(t, (<-c).err, net.ErrClosed)
		}
	})
}

// TestListenerTemporaryErrors holds the pauses against net/http's.
func TestListenerTemporaryErrors(t *testing.T) {
	outOfFiles := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	for name, tempErr := range map[string]error{"EMFILE": outOfFiles, "a type of its own": temporary{errors.New("try again")}} {
		t.Run(name, func(t *testing.T) {
			testpki.Bubble(t, func(t *testing.T) {
				f := newFixture(t)
				inner := newScript()
				for range 10 {
					inner.steps <- step{err: tempErr}
				}
				client := sslstream.New(inner.connect())
				inner.steps <- step{err: tempErr}
				l := sslstream.NewListener(inner, f.serverOptions())
				accepted := acceptLater(context.Background(), l)
				require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
				server := <-accepted
				require.NoError(t, server.err)
				time.Sleep(time.Second)

				var pauses []time.Duration
				for last := <-inner.asked; len(inner.asked) > 0; {
					next := <-inner.asked
					pauses = append(pauses, next.Sub(last))
					last = next
				}
				ms := time.Millisecond
				assert.Equal(t, []time.Duration{5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms, 1000 * ms, 1000 * ms, 0, 5 * ms}, pauses)

				inner.steps <- step{err: tempErr}
				synctest.Wait()
				l.Close() // in a pause
				client.Close()
				server.stream.Close()
			})
		})
	}
}

// TestListenerPermanentErrors: each is one call's, and the listener goes on if the inner one does.
func TestListenerPermanentErrors(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, f.serverOptions())
		broken := errors.New("broken")
		for range 3 {
			inner.steps <- step{err: broken}
		}
		inner.steps <- step{}
		for range 3 {
			conn, err := l.Accept()
			assert.Equal(t, broken, err)
			assert.Nil(t, conn)
		}
		_, err := l.Accept()
		assert.ErrorContains(t, err, "accepted no connection")

		accepted := acceptLater(context.Background(), l)
		client := sslstream.New(inner.connect())
		require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
		server := <-accepted
		require.NoError(t, server.err)

		for range 3 {
			inner.steps <- step{err: broken}
		}
		synctest.Wait()
		assert.Len(t, inner.steps, 2, "an error that nobody has taken keeps the listener from asking for more")
		l.Close()
		client.Close()
		server.stream.Close()
	})
}

// TestListenerCallbackEndsGoroutine has callbacks that leave by runtime.Goexit: no slot and no connection is lost.
func TestListenerCallbackEndsGoroutine(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		inner := newScript()
		l := sslstream.NewListener(inner, f.serverOptions())
		l.MaxHandshakes = 1
		l.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			if inner.accepted.Load() <= 3 {
				runtime.Goexit()
			}
			return ctx
		}
		accepted := acceptLater(context.Background(), l)
		for range 3 {
			_, err := inner.connect().Read(make([]byte, 1))
			assert.ErrorIs(t, err, io.EOF)
		}
		client := sslstream.New(inner.connect())
		require.NoError(t, client.AuthenticateAsClient(context.Background(), f.clientOptions()))
		server := <-accepted
		require.NoError(t, server.err)
		l.Close()
		client.Close()
		server.stream.Close()
	})
}

// TestListenerCallbackPanics runs itself in another process, which a panic in a callback has to end.
func TestListenerCallbackPanics(t *testing.T) {
	const variable = "SSLSTREAM_TEST_PANIC"
	if os.Getenv(variable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestListenerCallbackPanics$")
		cmd.Env = append(os.Environ(), variable+"=1")
		out, err := cmd.CombinedOutput()
		assert.Error(t, err)
		assert.Contains(t, string(out), "panic: a callback of the user's")
		return
	}
	inner := newScript()
	l := sslstream.NewListener(inner, nil)
	l.ServerOptionsSelectionCallback = func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
		panic("a callback of the user's")
	}
	client := sslstream.New(inner.connect())
	go l.Accept()
	client.AuthenticateAsClient(testContext(t), nil)
	l.Accept() // until the end
}
