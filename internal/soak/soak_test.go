package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSoak is a short one, with every kind of attack.
func TestSoak(t *testing.T) {
	var out bytes.Buffer
	err := soak(settings{time: 6 * time.Second, streams: 50, attackers: 2, seed: uint64(time.Now().UnixNano())}, &out)
	t.Log(out.String())
	require.NoError(t, err)
	assert.Contains(t, out.String(), "| lost | nothing |")
	for _, a := range attacks {
		assert.Contains(t, out.String(), "| attack: "+a.name+" |")
	}
}
