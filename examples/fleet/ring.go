package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file answers which session-ticket keys the fleet has, and how they are kept from whoever reads the store.

// ticketKey is one key, and when it was made.
type ticketKey struct {
	Made time.Time
	Key  [32]byte
}

// ring is the fleet's keys, newest first. The newest is only upcoming: it opens tickets, but none are made with it before the
// next rotation, so that every server knows it by then.
type ring struct{ Keys []ticketKey }

const (
	// maxKeys bounds the ring: the upcoming key, the one in use, and some whose tickets are still presented.
	maxKeys = 6
	// ticketLife is how long crypto/tls takes a ticket for.
	ticketLife = 7 * 24 * time.Hour
)

func newKey(now time.Time) ticketKey {
	k := ticketKey{Made: now.UTC()}
	rand.Read(k.Key[:])
	return k
}

// rotated returns the ring that follows: the upcoming key comes into use, and another is upcoming. Keys whose tickets nobody
// takes any more are dropped.
func (r ring) rotated(now time.Time) ring {
	next := ring{[]ticketKey{newKey(now)}}
	if len(r.Keys) == 0 {
		next.Keys = append(next.Keys, newKey(now))
	}
	for i, k := range r.Keys {
		// A key makes tickets until the rotation that makes the key two places before it.
		if i < 2 || now.Sub(r.Keys[i-2].Made) < ticketLife {
			next.Keys = append(next.Keys, k)
		}
	}
	next.Keys = next.Keys[:min(len(next.Keys), maxKeys)]
	return next
}

// due reports whether it is time for a rotation.
func (r ring) due(now time.Time, period time.Duration) bool {
	return len(r.Keys) < 2 || now.Sub(r.Keys[0].Made) >= period
}

// inUse is the keys as SetSessionTicketKeys takes them: the first makes tickets, all open them.
func (r ring) inUse() [][32]byte {
	keys := make([][32]byte, 0, len(r.Keys))
	for _, k := range r.Keys {
		keys = append(keys, k.Key)
	}
	if len(keys) >= 2 {
		keys[0], keys[1] = keys[1], keys[0]
	}
	return keys
}

func (r ring) equal(other ring) bool {
	return slices.EqualFunc(r.Keys, other.Keys, func(a, b ticketKey) bool { return a.Key == b.Key && a.Made.Equal(b.Made) })
}

// box seals rings with a key that the store does not have.
type box struct{ aead cipher.AEAD }

// sealed values begin with this, to be told from those of another kind or of a later version.
const sealedMark = "fleet ring 1\x00"

var errNotOurs = errors.New("it was not sealed with this FLEET_KEY, or was changed since")

// newBox takes a key of 32 bytes in base64.
func newBox(encoded string) (*box, error) {
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) != 32 {
		return nil, errors.New("fleet: FLEET_KEY must be 32 random bytes in base64, for example from: openssl rand -base64 32")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &box{aead}, err
}

// seal encrypts a ring for a place in the store, which it is bound to.
func (b *box) seal(r ring, place string) ([]byte, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return b.aead.Seal([]byte(sealedMark), nil, plain, []byte(sealedMark+place)), nil
}

func (b *box) open(sealed []byte, place string) (ring, error) {
	var r ring
	if len(sealed) < len(sealedMark) || string(sealed[:len(sealedMark)]) != sealedMark {
		return r, errors.New("it is no sealed ring of keys")
	}
	plain, err := b.aead.Open(nil, nil, sealed[len(sealedMark):], []byte(sealedMark+place))
	if err != nil {
		return r, errNotOurs
	}
	if err := json.Unmarshal(plain, &r); err != nil {
		return ring{}, fmt.Errorf("it is sealed but makes no sense: %w", err)
	}
	if len(r.Keys) < 2 || len(r.Keys) > maxKeys {
		return ring{}, fmt.Errorf("it has %d keys; 2 to %d are possible", len(r.Keys), maxKeys)
	}
	return r, nil
}
