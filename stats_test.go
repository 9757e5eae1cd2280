package sslstream_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// since is what has been counted since before. The counters are the process's: these tests do not run in parallel.
func since(before sslstream.Statistics) (total, failed, resumed int64) {
	now := sslstream.Stats()
	return now.TotalHandshakes - before.TotalHandshakes, now.FailedHandshakes - before.FailedHandshakes, now.ResumedHandshakes - before.ResumedHandshakes
}

// quiet waits until nothing is left of the tests and examples before: the counters are the process's. It is for the goroutine
// of a test that is nobody's subtest.
func quiet(t *testing.T) {
	t.Helper()
	require.Empty(t, leaked(1))
}

func TestStats(t *testing.T) {
	quiet(t)
	f := newFixture(t)
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			co, so := f.clientOptions(), f.serverOptions()
			co.EnabledProtocols = v.protocol
			before := sslstream.Stats()
			client, server := newPair(t, co, so)
			exchange(t, client, server)
			total, failed, resumed := since(before)
			assert.Equal(t, []int64{2, 0, 0}, []int64{total, failed, resumed}, "both sides are counted")
			now := sslstream.Stats()
			assert.Zero(t, now.CurrentHandshakes)
			assert.EqualValues(t, 2, now.SessionsOpen[v.protocol]-before.SessionsOpen[v.protocol])
			assert.Greater(t, now.HandshakeDuration[v.protocol], before.HandshakeDuration[v.protocol])

			newPair(t, co, so)
			_, _, resumed = since(before)
			assert.EqualValues(t, 2, resumed)

			now.SessionsOpen[v.protocol] = -1
			assert.NotEqualValues(t, -1, sslstream.Stats().SessionsOpen[v.protocol], "the map is the caller's")
		})
	}
	t.Run("failures", func(t *testing.T) {
		before := sslstream.Stats()
		client, server := newStreams(t)
		co := f.clientOptions()
		co.TargetHost = "other.example"
		authenticate(t, client, server, co, f.serverOptions())
		total, failed, _ := since(before)
		assert.Equal(t, []int64{2, 2}, []int64{total, failed})
		now := sslstream.Stats()
		assert.Equal(t, before.SessionsOpen, now.SessionsOpen)
		assert.Equal(t, before.HandshakeDuration, now.HandshakeDuration)
	})
	t.Run("what is no handshake", func(t *testing.T) {
		client, server := newPair(t, f.clientOptions(), f.serverOptions())
		before := sslstream.Stats()
		fresh, other := newStreams(t)
		require.Error(t, fresh.AuthenticateAsServer(t.Context(), &sslstream.ServerOptions{}), "a configuration error")
		require.Error(t, fresh.AuthenticateAsServerFunc(t.Context(), nil), "another one")
		require.ErrorIs(t, client.AuthenticateAsClient(t.Context(), nil), sslstream.ErrAlreadyAuthenticated)
		fresh.Close()
		require.ErrorIs(t, fresh.AuthenticateAsClient(t.Context(), nil), net.ErrClosed)
		other.Close()
		client.CloseWrite()
		server.CloseWrite()
		_, err := io.ReadAll(server)
		require.NoError(t, err)
		assert.Equal(t, before, sslstream.Stats(), "nor is the peer's close_notify the end of a stream")
	})
	t.Run("options that a callback chose with an error in them", func(t *testing.T) {
		before := sslstream.Stats()
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() {
			done <- server.AuthenticateAsServerFunc(t.Context(), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
				return &sslstream.ServerOptions{}, nil
			})
		}()
		assert.Error(t, client.AuthenticateAsClient(t.Context(), f.clientOptions()))
		assert.Error(t, <-done)
		total, failed, _ := since(before)
		assert.Equal(t, []int64{2, 2}, []int64{total, failed})
	})
	t.Run("a callback that panics", func(t *testing.T) {
		before := sslstream.Stats()
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
		co := f.clientOptions()
		co.RemoteCertificateValidationCallback = func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			panic("mine")
		}
		assert.Panics(t, func() { client.AuthenticateAsClient(t.Context(), co) })
		client.Close()
		require.Error(t, <-done)
		total, failed, _ := since(before)
		assert.Equal(t, []int64{2, 2}, []int64{total, failed})
		assert.Zero(t, sslstream.Stats().CurrentHandshakes)
		assert.Equal(t, before.SessionsOpen, sslstream.Stats().SessionsOpen)
	})
	t.Run("under way", func(t *testing.T) {
		before := sslstream.Stats()
		client, server := newStreams(t)
		inside := make(chan int64, 1)
		co := f.clientOptions()
		co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			inside <- sslstream.Stats().CurrentHandshakes - before.CurrentHandshakes
			return errs, nil
		}
		err, serverErr := authenticate(t, client, server, co, f.serverOptions())
		require.NoError(t, errors.Join(err, serverErr))
		assert.EqualValues(t, 2, <-inside)
	})
}

// TestSessionsOpen ends streams in every way, each of which is counted once, whatever comes after it.
func TestSessionsOpen(t *testing.T) {
	quiet(t)
	f := newFixture(t)
	open := func() int64 { return sslstream.Stats().SessionsOpen[tls13] }
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, client, server *sslstream.Stream)
	}{
		{"Close", func(t *testing.T, client, server *sslstream.Stream) {}},
		{"Detach", func(t *testing.T, client, server *sslstream.Stream) {
			exchange(t, client, server)
			_, err := client.Detach()
			require.NoError(t, err)
		}},
		{"Unwrap", func(t *testing.T, client, server *sslstream.Stream) {
			done := make(chan error, 1)
			go func() { _, err := server.Unwrap(t.Context()); done <- err }()
			_, err := client.Unwrap(t.Context())
			require.NoError(t, errors.Join(err, <-done))
		}},
		{"the inner stream's end", func(t *testing.T, client, server *sslstream.Stream) {
			exchange(t, client, server) // nothing is left unread, which would reset the connection
			client.Inner().Close()
			_, err := io.ReadAll(server)
			assert.NoError(t, err)
			assert.False(t, server.ReceivedCloseNotify())
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := open()
			client, server := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
			assert.Equal(t, before+2, open())
			tc.end(t, client, server)
			for range 2 {
				client.Close()
				server.Close()
				assert.Equal(t, before, open())
			}
		})
	}
	t.Run("everything at once", func(t *testing.T) {
		before := open()
		for range 20 {
			client, server := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
			var all sync.WaitGroup
			for _, s := range []*sslstream.Stream{client, server} {
				for range 4 {
					all.Go(func() { s.Close() })
					all.Go(func() { s.Detach() })
					all.Go(func() { s.Unwrap(t.Context()) })
				}
			}
			all.Wait()
			require.Equal(t, before, open())
		}
	})
	t.Run("no end", func(t *testing.T) {
		before := open()
		client, server := newPair(t, f.clientOptions(), f.serverOptions(), sslstream.LeaveInnerOpen())
		_, err := client.Inner().Write([]byte("this is no record"))
		require.NoError(t, err)
		_, err = server.Read(make([]byte, 1))
		require.Error(t, err)
		_, again := server.Read(make([]byte, 1))
		require.Equal(t, err, again, "a fatal error")
		assert.Equal(t, before+2, open(), "a broken stream is open until it is closed")
		server.Close()
		assert.Equal(t, before+1, open())
		client.Close()
		assert.Equal(t, before, open())
	})
	t.Run("a late refusal", func(t *testing.T) {
		before := open()
		client, server := newStreams(t)
		co, so := f.mutual()
		so.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(testpki.Root(t, "Another Root"))}
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
		require.NoError(t, client.AuthenticateAsClient(t.Context(), co))
		assert.Error(t, <-done)
		assert.Equal(t, before+1, open(), "the client does not know yet")
		_, err := client.Read(make([]byte, 1))
		authenticationError(t, err)
		assert.Equal(t, before, open())
		client.Close()
		assert.Equal(t, before, open())
	})
	t.Run("Close while it is authenticated", func(t *testing.T) {
		before := open()
		for range 20 {
			client, server := newStreams(t)
			done := make(chan error, 2)
			go func() { done <- server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
			go func() { done <- client.AuthenticateAsClient(t.Context(), f.clientOptions()) }()
			client.Close()
			server.Close()
			<-done
			<-done
			require.Equal(t, before, open())
		}
	})
}

// TestStatsAddUp looks at the counters while handshakes succeed, fail and end.
func TestStatsAddUp(t *testing.T) {
	quiet(t)
	f := newFixture(t)
	before := sslstream.Stats()
	stop, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		for done := false; !done; {
			select {
			case <-stop:
				done = true
			default:
			}
			now := sslstream.Stats()
			failed, resumed, total := now.FailedHandshakes-before.FailedHandshakes, now.ResumedHandshakes-before.ResumedHandshakes, now.TotalHandshakes-before.TotalHandshakes
			if now.CurrentHandshakes < 0 || now.SessionsOpen[tls13] < 0 || failed+resumed > total {
				t.Errorf("%+v", now)
				return
			}
		}
	}()
	const workers, rounds = 4, 15
	good, bad, so := f.clientOptions(), f.clientOptions(), f.serverOptions()
	bad.TargetHost = "other.example"
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range rounds {
				a, b := testpki.TCP(t)
				client, server := sslstream.New(a), sslstream.New(b)
				done := make(chan error, 1)
				go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
				if i%3 == 0 {
					assert.Error(t, client.AuthenticateAsClient(t.Context(), bad))
					client.Close()
					assert.Error(t, <-done)
				} else {
					assert.NoError(t, client.AuthenticateAsClient(t.Context(), good))
					assert.NoError(t, <-done)
				}
				client.Close()
				server.Close()
			}
		})
	}
	all.Wait()
	close(stop)
	<-looked
	now := sslstream.Stats()
	total, failed, _ := since(before)
	assert.EqualValues(t, 2*workers*rounds, total)
	assert.EqualValues(t, 2*workers*rounds/3, failed)
	assert.Zero(t, now.CurrentHandshakes)
	assert.Equal(t, before.SessionsOpen[tls13], now.SessionsOpen[tls13])
}

// traced records what a Trace is told.
type traced struct {
	starts, dones, validations int
	server                     bool
	host                       string
	security                   sslstream.Security
	took                       time.Duration
	err                        error
	chain                      *sslstream.Chain
	errs                       sslstream.PolicyErrors
}

func (r *traced) trace() *sslstream.Trace {
	return &sslstream.Trace{
		HandshakeStart: func(server bool, host string) { r.starts++; r.server, r.host = server, host },
		HandshakeDone: func(s sslstream.Security, took time.Duration, err error) {
			r.dones++
			r.security, r.took, r.err = s, took, err
		},
		Validated: func(cert *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors, took time.Duration) {
			r.validations++
			r.chain, r.errs = chain, errs
		},
	}
}

func TestTrace(t *testing.T) {
	f := newFixture(t)
	run := func(t *testing.T, co *sslstream.ClientOptions, so *sslstream.ServerOptions) (client, server *traced, s *sslstream.Stream, err error) {
		client, server = &traced{}, &traced{}
		c, v := newStreams(t)
		done := make(chan error, 1)
		go func() { done <- v.AuthenticateAsServer(sslstream.WithTrace(t.Context(), server.trace()), so) }()
		err = c.AuthenticateAsClient(sslstream.WithTrace(t.Context(), client.trace()), co)
		if err != nil {
			c.Close()
		}
		<-done
		return client, server, c, err
	}
	t.Run("success", func(t *testing.T) {
		client, server, s, err := run(t, f.clientOptions(), f.serverOptions())
		require.NoError(t, err)
		for _, r := range []*traced{client, server} {
			assert.Equal(t, []int{1, 1, 1}, []int{r.starts, r.dones, r.validations})
			assert.NoError(t, r.err)
			assert.Equal(t, s.Security(), r.security)
			assert.Positive(t, r.took)
			assert.Zero(t, r.errs)
		}
		assert.False(t, client.server)
		assert.Equal(t, serverName, client.host)
		assert.Len(t, client.chain.Elements, 3)
		assert.True(t, server.server)
		assert.Empty(t, server.host)
		assert.Nil(t, server.chain, "no certificate was asked for")
	})
	t.Run("refusal", func(t *testing.T) {
		co := f.clientOptions()
		co.TargetHost = "other.example"
		client, server, _, err := run(t, co, f.serverOptions())
		require.Error(t, err)
		assert.Equal(t, err, client.err)
		assert.Zero(t, client.security)
		assert.Equal(t, sslstream.RemoteCertificateNameMismatch, client.errs)
		assert.Equal(t, 1, server.dones)
		assert.Error(t, server.err)
	})
	t.Run("a callback that panics", func(t *testing.T) {
		before := sslstream.Stats()
		client, server := newStreams(t)
		go func() { server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
		r := &traced{}
		co := f.clientOptions()
		co.RemoteCertificateValidationCallback = func(context.Context, *sslstream.Stream, *x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			panic("mine")
		}
		assert.PanicsWithValue(t, "mine", func() { client.AuthenticateAsClient(sslstream.WithTrace(t.Context(), r.trace()), co) })
		assert.Equal(t, 1, r.dones)
		assert.Error(t, r.err)
		client.Close()
		require.Eventually(t, func() bool { return sslstream.Stats().CurrentHandshakes == before.CurrentHandshakes }, 5*time.Second, time.Millisecond)
	})
	t.Run("a configuration error is no handshake", func(t *testing.T) {
		client, _ := newStreams(t)
		r := &traced{}
		require.Error(t, client.AuthenticateAsServer(sslstream.WithTrace(t.Context(), r.trace()), nil))
		assert.Zero(t, r.starts+r.dones)
	})
	t.Run("several, and hooks that are nil", func(t *testing.T) {
		outer, inner := &traced{}, &traced{}
		ctx := sslstream.WithTrace(t.Context(), outer.trace())
		ctx = sslstream.WithTrace(ctx, &sslstream.Trace{})
		ctx = sslstream.WithTrace(ctx, nil)
		ctx = sslstream.WithTrace(ctx, inner.trace())
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() {
			done <- server.AuthenticateAsServer(sslstream.WithTrace(t.Context(), &sslstream.Trace{}), f.serverOptions())
		}()
		require.NoError(t, client.AuthenticateAsClient(ctx, f.clientOptions()))
		require.NoError(t, <-done)
		for _, r := range []*traced{outer, inner} {
			assert.Equal(t, []int{1, 1, 1}, []int{r.starts, r.dones, r.validations})
		}
	})
	t.Run("the time that it took", func(t *testing.T) {
		testpki.Bubble(t, func(t *testing.T) {
			f := newFixture(t)
			a, b := testpki.Pipe(t)
			client, server := sslstream.New(a), sslstream.New(b)
			defer server.Close()
			defer client.Close()
			r := &traced{}
			co := f.clientOptions()
			co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
				time.Sleep(3 * time.Second)
				return errs, nil
			}
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
			require.NoError(t, client.AuthenticateAsClient(sslstream.WithTrace(t.Context(), r.trace()), co))
			require.NoError(t, <-done)
			assert.Equal(t, 3*time.Second, r.took)
		})
	})
}
