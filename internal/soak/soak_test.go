package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSoak is a short one, with every kind of attack. What it wants of the latency and of the number of sessions is so little that a
// busy machine gives it too.
func TestSoak(t *testing.T) {
	var out bytes.Buffer
	done, err := soak(settings{
		time: 9 * time.Second, streams: 50, attackers: 2, seed: uint64(time.Now().UnixNano()), factor: 20, negligible: 250 * time.Millisecond,
	}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	assert.Contains(t, out.String(), "| lost | nothing |")
	for _, a := range attacks {
		assert.Positive(t, done.get(a.tally()), a.name)
	}
	assert.Greater(t, done.get(healthySessions), int64(60))
	assert.Greater(t, done.get(resumedSessions), int64(10))
	if smallBuffersStall {
		assert.Positive(t, done.get(closesThatWaited))
	}
}
