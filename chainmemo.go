package sslstream

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"time"
)

// This file answers which chains were found valid before. A resumed session brings the certificates of the first
// handshake again: what makes their chain valid, beside the time, is the same as long as the options are, which must not be
// changed. So on resumed sessions signatures are not checked again, but dates are. A full handshake always verifies: a pool
// may have constraints (x509.CertPool.AddCertWithConstraint) that only that asks. What was refused is not remembered.

// memoGeneration is how many chains are remembered before older ones begin to be forgotten; at most twice as many are kept.
const memoGeneration = 64

// chainMemo remembers valid chains under what the peer sent. Nil remembers nothing. It is safe for concurrent use.
type chainMemo struct {
	mu         sync.Mutex
	young, old map[chainKey][][]*x509.Certificate
}

type chainKey [sha256.Size]byte

// newChainMemo makes a memo, but none where the platform's own verifier may be asked: that may change its mind.
func newChainMemo() *chainMemo {
	switch runtime.GOOS {
	case "windows", "darwin", "ios":
		return nil
	}
	return &chainMemo{}
}

// keyOf stands for a leaf with what came with it, in that order.
func keyOf(leaf *x509.Certificate, sent []*x509.Certificate) chainKey {
	h := sha256.New()
	add := func(c *x509.Certificate) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	add(leaf)
	for _, c := range sent {
		add(c)
	}
	return chainKey(h.Sum(nil))
}

// recall returns the chains remembered for key; none where one of them is not valid at that moment, since there may be
// others then.
func (m *chainMemo) recall(key chainKey, now time.Time) [][]*x509.Certificate {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	chains, ok := m.young[key]
	if !ok {
		if chains, ok = m.old[key]; ok {
			m.storeLocked(key, chains)
		}
	}
	m.mu.Unlock()
	valid := make([][]*x509.Certificate, len(chains))
	for i, chain := range chains {
		if slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return now.Before(c.NotBefore) || now.After(c.NotAfter) }) {
			return nil
		}
		valid[i] = slices.Clone(chain) // what is handed out may be changed
	}
	return valid
}

// store remembers the chains for key, all of which are valid.
func (m *chainMemo) store(key chainKey, chains [][]*x509.Certificate) {
	if m == nil {
		return
	}
	own := make([][]*x509.Certificate, len(chains))
	for i, chain := range chains {
		own[i] = slices.Clone(chain)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.storeLocked(key, own)
}

func (m *chainMemo) storeLocked(key chainKey, chains [][]*x509.Certificate) {
	if len(m.young) >= memoGeneration {
		m.young, m.old = nil, m.young
	}
	if m.young == nil {
		m.young = map[chainKey][][]*x509.Certificate{}
	}
	m.young[key] = chains
}
