package sslstream_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// This file is an inner stream in memory that has every fault an inner stream may have.

var (
	errHiccup = errors.New("a fault that passes")
	errCut    = errors.New("the connection was cut")
)

// wire is one direction of a connection.
type wire struct {
	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, with every change
	sent    []byte        // all that was ever taken
	read    int           // how much of it was read
	room    int           // how much may be on its way
	limit   int           // the direction is cut behind so many bytes; -1: never
	ended   bool          // nothing will follow
	gone    bool          // nobody will read it: what is written vanishes
	onCut   func()
}

func newWire(room, limit int) *wire {
	return &wire{changed: make(chan struct{}), room: room, limit: limit}
}

func (w *wire) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// put takes what there is room for now. cut says that nothing more will be taken.
func (w *wire) put(p []byte) (n int, cut bool, changed <-chan struct{}) {
	w.mu.Lock()
	if gone := w.gone; gone || w.ended {
		w.mu.Unlock()
		if gone { // as a connection does whose other end is not yet known to be gone
			return len(p), false, nil
		}
		return 0, true, nil
	}
	n = min(len(p), w.room-(len(w.sent)-w.read))
	if w.limit >= 0 {
		n = min(n, w.limit-len(w.sent))
	}
	w.sent = append(w.sent, p[:n]...)
	cut = w.limit >= 0 && len(w.sent) == w.limit
	changed = w.changed
	w.mu.Unlock()
	if cut {
		w.end()
		if w.onCut != nil {
			w.onCut()
		}
	}
	if n > 0 {
		w.change(func() {})
	}
	return n, cut && n < len(p), changed
}

// get gives what there is now. ended says that nothing more will follow.
func (w *wire) get(p []byte) (n int, ended bool, changed <-chan struct{}) {
	w.mu.Lock()
	n = copy(p, w.sent[w.read:])
	w.read += n
	ended, changed = w.ended && w.read == len(w.sent), w.changed
	w.mu.Unlock()
	if n > 0 {
		w.change(func() {})
	}
	return n, ended, changed
}

func (w *wire) end() { w.change(func() { w.ended = true }) }

// faults is what one direction of an inner stream does wrong, by chance.
type faults struct {
	rand     *rand.Rand
	fragment bool        // pieces of a few bytes
	empty    bool        // reads of nothing
	withEOF  bool        // the last bytes together with io.EOF
	short    atomic.Bool // short writes without an error
	hiccups  atomic.Bool // errors, with and without bytes
	stalls   bool        // delays
	row      int
}

// one reports a chance of one in n.
func (f *faults) one(n int) bool { return f.rand.IntN(n) == 0 }

// size is how much of n bytes to move.
func (f *faults) size(n int) int {
	if !f.fragment || n < 2 || f.one(20) {
		return n
	}
	if f.one(3) {
		return 1
	}
	return 1 + f.rand.IntN(min(n, 8000))
}

// faulty is one end of a connection. It has deadlines; plain hides them.
type faulty struct {
	in, out         *wire
	onRead, onWrite *faults
	readBy, writeBy limit
	reads, writes   atomic.Int32
	overlaps        atomic.Int32 // two calls of Read, or of Write, at once
	closed          atomic.Int32
	done            chan struct{}
}

// limit is a deadline that wakes who waits.
type limit struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func (l *limit) set(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = at
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

func (l *limit) get() (time.Time, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.at, l.changed
}

func newFaulty(in, out *wire, onRead, onWrite *faults) *faulty {
	return &faulty{in: in, out: out, onRead: onRead, onWrite: onWrite, done: make(chan struct{})}
}

// plain hides everything but Read, Write and Close.
type plain struct{ io.ReadWriteCloser }

func (f *faulty) inner(deadlines bool) io.ReadWriteCloser {
	if deadlines {
		return f
	}
	return plain{f}
}

// wait waits for changed, or for d, until the deadline or Close.
func (f *faulty) wait(by *limit, changed <-chan struct{}, d time.Duration) error {
	at, moved := by.get()
	var until time.Time
	if changed == nil {
		until = time.Now().Add(d)
	}
	for {
		if !at.IsZero() && !time.Now().Before(at) {
			return os.ErrDeadlineExceeded
		}
		if changed == nil && !time.Now().Before(until) {
			return nil
		}
		next := until
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		var timer *time.Timer
		var expired <-chan time.Time
		if !next.IsZero() {
			timer = time.NewTimer(time.Until(next))
			expired = timer.C
		}
		over := false
		select {
		case <-changed:
			over = true
		case <-moved:
		case <-expired:
		case <-f.done:
			over = true
		}
		if timer != nil {
			timer.Stop()
		}
		if f.closed.Load() > 0 {
			return net.ErrClosed
		}
		if over {
			return nil
		}
		at, moved = by.get()
	}
}

func (f *faulty) Read(p []byte) (int, error) {
	if f.reads.Add(1) != 1 {
		f.overlaps.Add(1)
	}
	defer f.reads.Add(-1)
	if f.closed.Load() > 0 {
		return 0, net.ErrClosed
	}
	fault := f.onRead
	if fault.stalls && fault.one(10) {
		if err := f.wait(&f.readBy, nil, time.Duration(1+fault.rand.IntN(20))*time.Millisecond); err != nil {
			return 0, err
		}
	}
	if fault.empty && fault.row < 50 && fault.one(4) {
		fault.row++
		return 0, nil
	}
	fault.row = 0
	hiccup := fault.hiccups.Load() && fault.one(15)
	if hiccup && fault.one(2) {
		return 0, errHiccup
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.wait(&f.readBy, closedChannel, 0); err != nil { // a deadline that is past wins over data
		return 0, err
	}
	for {
		n, ended, changed := f.in.get(p[:fault.size(len(p))])
		switch {
		case n > 0 && ended && fault.withEOF:
			return n, io.EOF
		case n > 0 && hiccup:
			return n, errHiccup
		case n > 0:
			return n, nil
		case ended:
			return 0, io.EOF
		}
		if err := f.wait(&f.readBy, changed, 0); err != nil {
			return 0, err
		}
	}
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.writes.Add(1) != 1 {
		f.overlaps.Add(1)
	}
	defer f.writes.Add(-1)
	if f.closed.Load() > 0 {
		return 0, net.ErrClosed
	}
	fault := f.onWrite
	if fault.stalls && fault.one(10) {
		if err := f.wait(&f.writeBy, nil, time.Duration(1+fault.rand.IntN(20))*time.Millisecond); err != nil {
			return 0, err
		}
	}
	end, after := len(p), error(nil)
	if fault.hiccups.Load() && fault.one(15) {
		end, after = fault.rand.IntN(len(p)+1), errHiccup
	} else if fault.short.Load() && fault.one(15) {
		end = fault.rand.IntN(len(p) + 1)
	}
	n := 0
	for {
		if err := f.wait(&f.writeBy, closedChannel, 0); err != nil {
			return n, err
		}
		if n == end {
			return n, after
		}
		k, cut, changed := f.out.put(p[n:min(end, n+fault.size(end-n))])
		n += k
		if cut {
			return n, errCut
		}
		if k == 0 {
			if err := f.wait(&f.writeBy, changed, 0); err != nil {
				return n, err
			}
		}
	}
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (f *faulty) Close() error {
	if f.closed.Add(1) == 1 {
		close(f.done)
		f.out.end()
		f.in.change(func() { f.in.gone = true })
	}
	return nil
}

func (f *faulty) SetReadDeadline(t time.Time) error  { f.readBy.set(t); return nil }
func (f *faulty) SetWriteDeadline(t time.Time) error { f.writeBy.set(t); return nil }
