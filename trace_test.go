package sslstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// TestTraceOrder has the hooks and the callback say when they are called.
func TestTraceOrder(t *testing.T) {
	f := newFixture(t)
	var calls []string
	hooks := func(name string) *sslstream.Trace {
		return &sslstream.Trace{
			HandshakeStart: func(bool, string) { calls = append(calls, name+"start") },
			HandshakeDone:  func(sslstream.Security, time.Duration, error) { calls = append(calls, name+"done") },
			Validated: func(*x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors, time.Duration) {
				calls = append(calls, name+"validated")
			},
		}
	}
	var none context.Context
	ctx := sslstream.WithTrace(sslstream.WithTrace(none, hooks("outer ")), hooks("inner "))
	co := f.clientOptions()
	co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
		calls = append(calls, "callback")
		return errs, nil
	}
	want := []string{"inner start", "outer start", "inner validated", "outer validated", "callback", "inner done", "outer done"}
	so := f.serverOptions()
	for _, resumed := range []bool{false, true} {
		calls = nil
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServer(t.Context(), so) }()
		require.NoError(t, client.AuthenticateAsClient(ctx, co))
		require.NoError(t, <-done)
		exchange(t, client, server)
		require.Equal(t, resumed, client.Security().Resumed)
		assert.Equal(t, want, calls, "resumed: %v", resumed)
	}
}

// TestTraceOnServers has the cases that only a server has.
func TestTraceOnServers(t *testing.T) {
	f := newFixture(t)
	run := func(t *testing.T, co *sslstream.ClientOptions, so *sslstream.ServerOptions) (r *traced, err error) {
		r = &traced{}
		client, server := newStreams(t)
		done := make(chan error, 1)
		go func() {
			done <- server.AuthenticateAsServerFunc(sslstream.WithTrace(t.Context(), r.trace()), func(context.Context, *sslstream.Stream, sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
				return so, nil
			})
		}()
		if client.AuthenticateAsClient(t.Context(), co) != nil {
			client.Close()
		}
		return r, <-done
	}
	t.Run("a certificate", func(t *testing.T) {
		co, so := f.mutual()
		r, err := run(t, co, so)
		require.NoError(t, err)
		assert.Equal(t, []int{1, 1, 1}, []int{r.starts, r.dones, r.validations})
		assert.True(t, r.server)
		assert.Empty(t, r.host, "it is not known yet")
		assert.True(t, r.chain.Elements[0].Certificate.Equal(f.client.Leaf))
		assert.True(t, r.security.MutuallyAuthenticated)
	})
	t.Run("one that is required, and none", func(t *testing.T) {
		_, so := f.mutual()
		r, err := run(t, f.clientOptions(), so)
		assert.Equal(t, authenticationError(t, err), r.err)
		assert.Equal(t, sslstream.RemoteCertificateNotAvailable, r.errs)
		assert.Nil(t, r.chain)
	})
	t.Run("options with an error in them", func(t *testing.T) {
		r, err := run(t, f.clientOptions(), &sslstream.ServerOptions{})
		assert.Equal(t, []int{1, 1, 0}, []int{r.starts, r.dones, r.validations})
		assert.Equal(t, authenticationError(t, err), r.err)
	})
}

// TestTraceHookThatPanics leaves the counters right, and the stream failed or authenticated, never in between.
func TestTraceHookThatPanics(t *testing.T) {
	quiet(t)
	f := newFixture(t)
	for _, tc := range []struct {
		name  string
		trace func(*sslstream.Trace)
		fails bool
	}{
		{"HandshakeStart", func(h *sslstream.Trace) { h.HandshakeStart = func(bool, string) { panic("mine") } }, true},
		{"Validated", func(h *sslstream.Trace) {
			h.Validated = func(*x509.Certificate, *sslstream.Chain, sslstream.PolicyErrors, time.Duration) { panic("mine") }
		}, true},
		{"HandshakeDone", func(h *sslstream.Trace) {
			h.HandshakeDone = func(sslstream.Security, time.Duration, error) { panic("mine") }
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := sslstream.Stats()
			client, server := newStreams(t)
			done := make(chan error, 1)
			go func() { done <- server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
			var results []error
			hooks := &sslstream.Trace{HandshakeDone: func(_ sslstream.Security, _ time.Duration, err error) { results = append(results, err) }}
			tc.trace(hooks)
			assert.PanicsWithValue(t, "mine", func() { client.AuthenticateAsClient(sslstream.WithTrace(t.Context(), hooks), f.clientOptions()) })
			if tc.fails {
				require.Len(t, results, 1, "HandshakeDone is called all the same")
				authenticationError(t, results[0])
				assert.False(t, client.IsAuthenticated())
				client.Close()
				assert.Error(t, <-done)
			} else {
				require.NoError(t, <-done)
				exchange(t, client, server)
				client.Close()
			}
			server.Close()
			total, failed, _ := since(before)
			assert.EqualValues(t, 2, total)
			assert.EqualValues(t, map[bool]int{true: 2, false: 0}[tc.fails], failed)
			now := sslstream.Stats()
			assert.Zero(t, now.CurrentHandshakes)
			assert.Equal(t, before.SessionsOpen[tls13], now.SessionsOpen[tls13])
		})
	}
}

// TestTraceTimes has a slow clock and a slow callback: Validated is about the chain, HandshakeDone and HandshakeDuration about
// all of it.
func TestTraceTimes(t *testing.T) {
	testpki.Bubble(t, func(t *testing.T) {
		f := newFixture(t)
		a, b := testpki.Pipe(t)
		client, server := sslstream.New(a), sslstream.New(b)
		defer server.Close()
		defer client.Close()
		co := f.clientOptions()
		co.EnabledProtocols = tls12 // after which the client has nothing to send
		co.TLSConfig = &tls.Config{Time: func() time.Time {
			time.Sleep(2 * time.Second)
			return time.Now()
		}}
		co.RemoteCertificateValidationCallback = func(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			time.Sleep(3 * time.Second)
			return errs, nil
		}
		var took []time.Duration
		ctx := sslstream.WithTrace(t.Context(), &sslstream.Trace{
			HandshakeDone: func(_ sslstream.Security, d time.Duration, _ error) { took = append(took, d) },
			Validated: func(_ *x509.Certificate, _ *sslstream.Chain, _ sslstream.PolicyErrors, d time.Duration) {
				took = append(took, d)
			},
		})
		before := sslstream.Stats()
		done := make(chan error, 1)
		go func() { done <- server.AuthenticateAsServer(t.Context(), f.serverOptions()) }()
		began := time.Now()
		require.NoError(t, client.AuthenticateAsClient(ctx, co))
		all := time.Since(began)
		require.NoError(t, <-done)
		assert.Equal(t, []time.Duration{2 * time.Second, all}, took)
		assert.GreaterOrEqual(t, all, 5*time.Second)
		assert.GreaterOrEqual(t, sslstream.Stats().HandshakeDuration[tls12]-before.HandshakeDuration[tls12], all)
	})
}
