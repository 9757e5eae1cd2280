package transport

import (
	"sync"
	"sync/atomic"
)

const (
	recordHeader = 5
	// maxPlaintext is the most that one record carries (RFC 8446, Section 5.1).
	maxPlaintext = 16 << 10

	// BatchSize is the most plaintext that goes into one Write of inner.
	BatchSize = 64 << 10

	// Buffers come in two sizes: for one record or a flight of handshake messages, and for a batch of records.
	// Protection adds at most 85 bytes to a full record (CBC with SHA-384), and to an odd last one as well.
	smallBuffer = maxPlaintext + 512
	batchBuffer = BatchSize + (BatchSize/maxPlaintext+1)*128
)

var (
	smallSlabs = sync.Pool{New: func() any { return &slab{b: make([]byte, smallBuffer)} }}
	batchSlabs = sync.Pool{New: func() any { return &slab{b: make([]byte, batchBuffer)} }}
	slabsInUse atomic.Int64 // for the tests: nothing may be left behind
)

// slab is a buffer's memory, which comes from a pool and goes back to it.
type slab struct {
	b    []byte
	pool *sync.Pool // nil: larger than the pools' sizes
}

// takeSlab returns a slab of at least size bytes.
func takeSlab(size int) *slab {
	slabsInUse.Add(1)
	pool := &smallSlabs
	switch {
	case size > batchBuffer:
		return &slab{b: make([]byte, size)}
	case size > smallBuffer:
		pool = &batchSlabs
	}
	s := pool.Get().(*slab)
	s.pool = pool
	return s
}

// giveBack returns the slab to its pool: nobody may use it any more.
func (s *slab) giveBack() {
	slabsInUse.Add(-1)
	if s.pool != nil {
		s.pool.Put(s)
	}
}

// abandon leaves the slab to the garbage collector, because somebody may still use it.
func (s *slab) abandon() { slabsInUse.Add(-1) }

// buffer is a queue of bytes that holds memory only while it holds bytes.
type buffer struct {
	slab       *slab
	start, end int
}

func (b *buffer) len() int { return b.end - b.start }

// bytes is what the buffer holds. It stays valid until it is consumed, whatever is appended.
func (b *buffer) bytes() []byte {
	if b.slab == nil {
		return nil
	}
	return b.slab.b[b.start:b.end]
}

// reserve makes room for about size bytes in an empty buffer, so that appending them in pieces need not grow it.
func (b *buffer) reserve(size int) {
	if b.slab == nil {
		b.slab = takeSlab(size)
	}
}

// append adds p. Bytes that are in the buffer already are not moved: they may be in use.
func (b *buffer) append(p []byte) {
	if len(p) == 0 {
		return
	}
	b.reserve(len(p))
	if len(b.slab.b)-b.end < len(p) {
		larger := takeSlab(max(b.len()+len(p), 2*b.len()))
		b.start, b.end = 0, copy(larger.b, b.bytes())
		b.slab.abandon()
		b.slab = larger
	}
	b.end += copy(b.slab.b[b.end:], p)
}

// consume drops the first n bytes, and the memory with the last.
func (b *buffer) consume(n int) {
	b.start += n
	if b.start == b.end {
		b.drop()
	}
}

func (b *buffer) drop() {
	if b.slab != nil {
		b.slab.giveBack()
	}
	*b = buffer{}
}
