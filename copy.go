package sslstream

import (
	"errors"
	"io"
	"sync"

	"github.com/sslstream/sslstream/internal/transport"
)

// This file answers how io.Copy moves data through a stream: in pieces of a batch, while there is so much.

// ReadFrom writes what r gives until it ends, each piece as soon as it is read. It implements io.ReaderFrom. Where an error
// cuts it short, what was read from r but not accepted is lost, as with io.Copy; n counts what was accepted.
func (s *Stream) ReadFrom(r io.Reader) (n int64, err error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	// r may give nothing for a long time, so a large buffer waits for it only where it has just filled a small one.
	return copyPieces(s.Write, r.Read, func(last int) bool { return last >= transport.RecordSize })
}

// WriteTo writes what the stream reads to w until it ends. It implements io.WriterTo.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	return copyPieces(w.Write, s.Read, func(int) bool {
		if !s.reading.try() {
			return false
		}
		defer s.doneReading()
		return s.transport.Ready()
	})
}

var smallPieces, largePieces = newPieces(transport.RecordSize), newPieces(transport.BatchSize)

func newPieces(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// copyPieces copies until read ends. large tells after each piece, of so many bytes, whether the next one may be large.
func copyPieces(write, read func([]byte) (int, error), large func(last int) bool) (total int64, err error) {
	pool := smallPieces
	buf := pool.Get().(*[]byte)
	defer func() { pool.Put(buf) }()
	for empty := 0; ; {
		n, rerr := read(*buf)
		if n < 0 || n > len(*buf) {
			return total, errors.New("sslstream: Read returned an impossible count")
		}
		if n > 0 {
			empty = 0
			k, werr := write((*buf)[:n])
			total += int64(max(0, min(k, n)))
			if werr != nil {
				return total, werr
			}
			if k != n {
				return total, io.ErrShortWrite
			}
		} else if rerr == nil {
			if empty++; empty == 100 {
				return total, io.ErrNoProgress
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
		next := smallPieces
		if large(n) {
			next = largePieces
		}
		if next != pool {
			pool.Put(buf)
			pool = next
			buf = pool.Get().(*[]byte)
		}
	}
}
