package sslstream

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestCountingDoesNotAllocate has a stream counted from its handshake to its end without a Trace in the context.
func TestCountingDoesNotAllocate(t *testing.T) {
	s := &Stream{}
	s.session.Store(&session{state: tls.ConnectionState{Version: tls.VersionTLS13}})
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		count := s.countHandshake(t.Context())
		count.start()
		traceOf(t.Context()).validated(nil, nil, 0, 0)
		count.done(nil)
		s.countEnd()
	}))
}
