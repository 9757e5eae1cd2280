package main

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func testBox(t *testing.T) *box {
	t.Helper()
	b, err := newBox(base64.StdEncoding.EncodeToString(randomBytes(32)))
	require.NoError(t, err)
	return b
}

func TestFleetKeyMustBeOne(t *testing.T) {
	for _, bad := range []string{"", "secret", base64.StdEncoding.EncodeToString(randomBytes(16)), "%%%"} {
		_, err := newBox(bad)
		assert.ErrorContains(t, err, "FLEET_KEY", "%q", bad)
	}
}

func TestRotation(t *testing.T) {
	now := time.Now()
	var r ring
	assert.True(t, r.due(now, time.Hour))
	r = r.rotated(now)
	require.Len(t, r.Keys, 2)
	assert.False(t, r.due(now.Add(time.Hour-1), time.Hour))
	assert.True(t, r.due(now.Add(time.Hour), time.Hour))

	for range 20 {
		before := r
		now = now.Add(time.Hour)
		r = r.rotated(now)
		assert.Equal(t, before.Keys[0].Key, r.inUse()[0], "what comes into use was known to all servers before")
		assert.Equal(t, before.inUse()[0], r.Keys[2].Key, "what was in use still opens its tickets")
		assert.Contains(t, before.inUse(), r.inUse()[0])
		assert.LessOrEqual(t, len(r.Keys), maxKeys)
	}
	require.Len(t, r.Keys, maxKeys)
	idle := r.rotated(now.Add(ticketLife + time.Hour))
	assert.Len(t, idle.Keys, 3, "nobody takes the tickets of the others any more")
}

func TestSealedRing(t *testing.T) {
	b, r := testBox(t), ring{}.rotated(time.Now())
	sealed, err := b.seal(r, "here")
	require.NoError(t, err)
	opened, err := b.open(sealed, "here")
	require.NoError(t, err)
	assert.True(t, opened.equal(r))
	assert.NotContains(t, string(sealed), string(r.Keys[0].Key[:]))

	again, err := b.seal(r, "here")
	require.NoError(t, err)
	assert.NotEqual(t, sealed, again, "another nonce")

	_, err = testBox(t).open(sealed, "here")
	assert.ErrorIs(t, err, errNotOurs, "another key")
	_, err = b.open(sealed, "elsewhere")
	assert.ErrorIs(t, err, errNotOurs, "another place")
	for i := range sealed {
		_, err = b.open(sealed[:i], "here")
		assert.Error(t, err, "cut at %d", i)
		changed := append([]byte(nil), sealed...)
		changed[i] ^= 1
		_, err = b.open(changed, "here")
		assert.Error(t, err, "changed at %d", i)
	}
	for _, bad := range []ring{{}, {r.Keys[:1]}, {make([]ticketKey, maxKeys+1)}} {
		sealed, err := b.seal(bad, "here")
		require.NoError(t, err)
		_, err = b.open(sealed, "here")
		assert.ErrorContains(t, err, "keys")
	}
}
