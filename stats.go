package sslstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"
)

// This file answers how many handshakes there were and how they went: counters for the process, hooks for one of them.

// Statistics are counters of the process, one snapshot of them. They correspond to the counters of the event source
// System.Net.Security. An authentication that ends with a configuration error is no handshake.
type Statistics struct {
	TotalHandshakes   int64 // finished, failed ones included
	CurrentHandshakes int64 // under way
	FailedHandshakes  int64
	ResumedHandshakes int64 // of the successful ones
	// SessionsOpen are the streams that were authenticated and not yet closed, by the version they speak. A stream leaves
	// it once, by what comes first: Close, Detach, Unwrap, or a server's late refusal of the client; never if there is none
	// of these. Versions that were never spoken are missing.
	SessionsOpen map[Protocols]int64
	// HandshakeDuration is the time that successful handshakes took, all together, by version.
	HandshakeDuration map[Protocols]time.Duration
}

// counters are the statistics as they are counted; versions by their place in the range.
var counters struct {
	total, current, failed, resumed atomic.Int64

	versions [tls.VersionTLS13 - tls.VersionTLS10 + 1]struct {
		sessions, open, duration atomic.Int64
	}
}

// Stats returns the statistics of this moment; the maps are the caller's. It is safe for concurrent use. Counters that change
// meanwhile may be seen before or after, but no failed or resumed handshake is seen that is not in the total.
func Stats() Statistics {
	s := Statistics{
		SessionsOpen:      map[Protocols]int64{},
		HandshakeDuration: map[Protocols]time.Duration{},
	}
	// What is a part of the total is read before it, and counted after it.
	s.CurrentHandshakes = counters.current.Load()
	s.FailedHandshakes = counters.failed.Load()
	s.ResumedHandshakes = counters.resumed.Load()
	s.TotalHandshakes = counters.total.Load()
	for i := range counters.versions {
		v := &counters.versions[i]
		if v.sessions.Load() == 0 {
			continue
		}
		p := protocolOf(tls.VersionTLS10 + uint16(i))
		s.SessionsOpen[p] = v.open.Load()
		s.HandshakeDuration[p] = time.Duration(v.duration.Load())
	}
	return s
}

// Trace is a set of hooks, any of them nil, for the authentications whose context carries it. It corresponds to the events
// and activities of System.Net.Security. The hooks run on the goroutine that authenticates, which waits for them, and
// several at once where a Trace serves several authentications.
type Trace struct {
	// HandshakeStart is called before anything is sent. targetHost is a client's target; "" on a server.
	HandshakeStart func(server bool, targetHost string)
	// HandshakeDone is called once for each HandshakeStart, also where a callback panics. s is zero where err is not nil.
	HandshakeDone func(s Security, took time.Duration, err error)
	// Validated is called once the peer's certificate is judged, before the RemoteCertificateValidationCallback. errs is what
	// was wrong; cert and chain are nil where the peer sent no certificate.
	Validated func(cert *x509.Certificate, chain *Chain, errs PolicyErrors, took time.Duration)
	// Revocation is called for each certificate that is asked about, once for each path to a root that is tried, before Validated: source is "staple", "cache", or the URL
	// of the service that answered or was asked last; status is "good", "revoked", "unknown" where the responder says so, or
	// "unavailable" where nobody can say; err is nil for "good" only.
	Revocation func(cert *x509.Certificate, source string, status string, took time.Duration, err error)
}

type traceKey struct{}

// WithTrace returns a context that carries t to the authentications that are given it, besides a Trace that ctx carries
// already: the newer one's hooks are called first. A nil t adds nothing.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	ctx = orBackground(ctx)
	if t == nil {
		return ctx
	}
	own := *t
	if before := traceOf(ctx); before != nil {
		own = Trace{
			HandshakeStart: func(server bool, targetHost string) {
				t.handshakeStart(server, targetHost)
				before.handshakeStart(server, targetHost)
			},
			HandshakeDone: func(s Security, took time.Duration, err error) {
				t.handshakeDone(s, took, err)
				before.handshakeDone(s, took, err)
			},
			Validated: func(cert *x509.Certificate, chain *Chain, errs PolicyErrors, took time.Duration) {
				t.validated(cert, chain, errs, took)
				before.validated(cert, chain, errs, took)
			},
			Revocation: func(cert *x509.Certificate, source, status string, took time.Duration, err error) {
				t.revocation(cert, source, status, took, err)
				before.revocation(cert, source, status, took, err)
			},
		}
	}
	return context.WithValue(ctx, traceKey{}, &own)
}

// traceOf is the trace that ctx carries; nil, whose hooks do nothing, for none.
func traceOf(ctx context.Context) *Trace {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	return t
}

func (t *Trace) handshakeStart(server bool, targetHost string) {
	if t != nil && t.HandshakeStart != nil {
		t.HandshakeStart(server, targetHost)
	}
}

func (t *Trace) handshakeDone(s Security, took time.Duration, err error) {
	if t != nil && t.HandshakeDone != nil {
		t.HandshakeDone(s, took, err)
	}
}

func (t *Trace) validated(cert *x509.Certificate, chain *Chain, errs PolicyErrors, took time.Duration) {
	if t != nil && t.Validated != nil {
		t.Validated(cert, chain, errs, took)
	}
}

func (t *Trace) revocation(cert *x509.Certificate, source, status string, took time.Duration, err error) {
	if t != nil && t.Revocation != nil {
		t.Revocation(cert, source, status, took, err)
	}
}

// handshakeCount is one handshake on its way through the counters.
type handshakeCount struct {
	stream *Stream
	trace  *Trace
	began  time.Time
}

// countHandshake begins to count one. start and done must follow.
func (s *Stream) countHandshake(ctx context.Context) handshakeCount {
	counters.current.Add(1)
	return handshakeCount{s, traceOf(ctx), time.Now()}
}

func (h handshakeCount) start() {
	h.trace.handshakeStart(h.stream.IsServer(), h.stream.TargetHostName())
}

// done counts how it ended. A successful one opens a session.
func (h handshakeCount) done(err error) {
	took := time.Since(h.began)
	counters.total.Add(1)
	counters.current.Add(-1)
	if err != nil {
		counters.failed.Add(1)
		h.trace.handshakeDone(Security{}, took, err)
		return
	}
	state := &h.stream.negotiated().state
	if state.DidResume {
		counters.resumed.Add(1)
	}
	v := &counters.versions[state.Version-tls.VersionTLS10]
	v.sessions.Add(1)
	v.duration.Add(int64(took))
	v.open.Add(1)
	h.stream.open.Store(uint32(state.Version))
	h.stream.phase.Store(phaseAuthenticated) // not before: whatever ends the session must find it counted
	if h.stream.closed.Load() {              // Close came first
		h.stream.countEnd()
	}
	if h.trace != nil {
		h.trace.handshakeDone(h.stream.Security(), took, nil)
	}
}

// countEnd counts the end of the stream's session, the first time there is one.
func (s *Stream) countEnd() {
	if version := s.open.Swap(0); version != 0 {
		counters.versions[version-tls.VersionTLS10].open.Add(-1)
	}
}
