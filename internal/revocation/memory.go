package revocation

import (
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// key names something that can be remembered.
type key [sha256.Size]byte

// keyOf hashes words so that no two different lists have the same key.
func keyOf(words ...[]byte) key {
	all := make([]byte, 0, 1024)
	for _, w := range words {
		all = binary.BigEndian.AppendUint32(all, uint32(len(w)))
		all = append(all, w...)
	}
	return sha256.Sum256(all)
}

// certKey is a certificate by its serial number and its issuer's name and key.
func certKey(cert, issuer *x509.Certificate) key {
	return keyOf([]byte("certificate"), issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, cert.SerialNumber.Bytes())
}

// listKey is a CRL by where it is had and by its issuer's name and key.
func listKey(url string, issuer *x509.Certificate) key {
	return keyOf([]byte("list"), []byte(url), issuer.RawSubject, issuer.RawSubjectPublicKeyInfo)
}

// failure is a question that got no answer a moment ago.
type failure struct {
	until  time.Time
	err    error
	answer *Answer // an Unknown, which is signed but not to be kept
}

// memory keeps what was used last, within a bound. Keys are keys and questions; values are not modified. It is safe for
// concurrent use.
type memory struct {
	mu      sync.Mutex
	bound   int
	weight  int
	entries map[any]*list.Element
	order   list.List // of *entry, the last used first
}

type entry struct {
	key, value any
	weight     int
}

func newMemory(bound int) *memory {
	return &memory{bound: bound, entries: map[any]*list.Element{}}
}

// weigh is about what a value takes, its entry included.
func weigh(value any) int {
	const each = 512
	switch v := value.(type) {
	case *Answer:
		return each + len(v.Raw)
	case *revocationList:
		return each + v.size()
	}
	return each
}

func (m *memory) get(k any) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[k]
	if !ok {
		return nil
	}
	m.order.MoveToFront(e)
	return e.Value.(*entry).value
}

// put remembers value instead of what there is. One that is larger than the bound is not remembered.
func (m *memory) put(k, value any) {
	m.replace(k, value, func(any) bool { return true })
}

// replace is put where better says so of what there is.
func (m *memory) replace(k, value any, better func(old any) bool) {
	added := &entry{key: k, value: value, weight: weigh(value)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[k]; ok {
		if !better(e.Value.(*entry).value) {
			return
		}
		m.drop(e)
	}
	if added.weight > m.bound {
		return
	}
	m.entries[k] = m.order.PushFront(added)
	m.weight += added.weight
	for m.weight > m.bound {
		m.drop(m.order.Back())
	}
}

func (m *memory) drop(e *list.Element) {
	old := m.order.Remove(e).(*entry)
	delete(m.entries, old.key)
	m.weight -= old.weight
}
