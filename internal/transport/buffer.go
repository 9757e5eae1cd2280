package transport

import (
	"sync"
	"sync/atomic"
)

const (
	recordHeader = 5
	// maxPlaintext is the most that one record carries (RFC 8446, Section 5.1).
	maxPlaintext = 16 << 10
	// maxOverhead is more than protection adds to a record: at most 85 bytes (CBC with SHA-384).
	maxOverhead = 128

	// RecordSize is the most plaintext that goes into one record.
	RecordSize = maxPlaintext
	// BatchSize is the most plaintext that goes into one Write of inner.
	BatchSize = 256 << 10
)

// Buffers come in three sizes: for one record or a flight of handshake messages, for a few records, and for a batch.
var slabClasses = [...]struct {
	size int
	pool *sync.Pool
}{
	{protectedSize(maxPlaintext), new(sync.Pool)},
	{protectedSize(4 * maxPlaintext), new(sync.Pool)},
	{protectedSize(BatchSize), new(sync.Pool)},
}

// protectedSize is what n bytes of plaintext need at the most, as records.
func protectedSize(n int) int { return n + (n/maxPlaintext+1)*maxOverhead }

var (
	recordSlab = slabClasses[0].size
	batchSlab  = slabClasses[len(slabClasses)-1].size

	slabsInUse atomic.Int64
)

// BuffersInUse is how many buffers streams hold at the moment, for tests: idle streams hold none.
func BuffersInUse() int { return int(slabsInUse.Load()) }

// slab is a buffer's memory, which comes from a pool and goes back to it.
type slab struct {
	b    []byte
	pool *sync.Pool // nil: larger than the pools' sizes
}

// takeSlab returns a slab of at least size bytes.
func takeSlab(size int) *slab {
	slabsInUse.Add(1)
	for i := range slabClasses {
		class := &slabClasses[i]
		if size > class.size {
			continue
		}
		if s, ok := class.pool.Get().(*slab); ok {
			return s
		}
		return &slab{b: make([]byte, class.size), pool: class.pool}
	}
	return &slab{b: make([]byte, size)}
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

// append adds p; a buffer that has no memory yet takes some for size bytes, so that appending them in pieces need not
// grow it. Bytes that are in the buffer already are not moved: they may be in use.
func (b *buffer) append(p []byte, size int) {
	if len(p) == 0 {
		return
	}
	if b.slab == nil {
		b.slab = takeSlab(max(len(p), size))
	}
	if len(b.slab.b)-b.end < len(p) {
		larger := takeSlab(max(b.len()+len(p), 2*b.len()))
		b.start, b.end = 0, copy(larger.b, b.bytes())
		b.slab.abandon()
		b.slab = larger
	}
	b.end += copy(b.slab.b[b.end:], p)
}

// space is memory for size bytes to be read into an empty buffer; extend tells how many were.
func (b *buffer) space(size int) []byte {
	b.slab = takeSlab(size)
	return b.slab.b
}

func (b *buffer) extend(n int) {
	b.end += n
	if b.end == 0 {
		b.drop()
	}
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
