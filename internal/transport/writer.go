package transport

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// maxReplies bounds what reading may queue without anybody sending it: answers to a peer that demands key
// updates but takes none of the answers.
const maxReplies = 64 << 10

var (
	errInvalidWrite   = errors.New("sslstream: the inner stream's Write returned an impossible count")
	errTooManyReplies = errors.New("sslstream: the peer demands answers but does not read them")
)

// writer queues records and sends them. crypto/tls only ever sees the queue, which takes everything, so that no
// timeout and no error of inner can leave its state and the bytes on the wire at odds. What could not be sent stays
// queued: the next send goes on where it stopped.
type writer struct {
	replies atomic.Bool  // the queue has what reading put there
	replied atomic.Bool  // it had, since somebody asked
	left    atomic.Bool  // something is queued, or being sent
	data    atomic.Int32 // how much the user is writing at the moment; 0: what is queued now is none of the user's

	mu        sync.Mutex
	wantFlush bool // inner is to be flushed once the queue is empty
	sending   bool // somebody is at it
	hasData   bool // some of the queue is the user's data
	discard   bool // nothing may follow what is queued
	released  bool // nor need that be sent
	queue     buffer
	socket    *socketWriter // inner, if it is a socket of the kernel's
	sent      chan struct{} // closed and dropped when sending turns false; nil while nobody waits
	inner     io.Writer
	flusher   interface{ Flush() error } // nil where inner has none
	fault     error                      // the socket's, to be reported by the next send
	broken    error                      // nobody knows what inner took: nothing can follow
	limits    limits
}

// write queues p. It never fails: see writer. Once the session is over in this direction it drops p, such as the
// answer to a key update after close_notify.
//
// crypto/tls calls it once at a time and holds a lock meanwhile that reading may need, so nothing here may wait. A single
// record goes to a socket at once, uncopied, if nothing is before it; the queue gets what the socket has no room for.
func (w *writer) write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	total, size := len(p), int(w.data.Load())
	if p[0] != typeApplicationData {
		// In the middle of a user's Write, which may be waiting for the end of a renegotiation: reading sends this.
		size = 0
	}
	var fault error
	if w.socket != nil && size > 0 && size <= maxPlaintext && size < len(p) && !w.left.Load() {
		var n int
		n, fault = w.socket.write(p)
		if p = p[n:]; len(p) == 0 {
			return total, nil
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.discard {
		return total, nil
	}
	w.fault = fault
	if size == 0 {
		w.replies.Store(true)
		w.replied.Store(true)
	} else {
		size = protectedSize(size)
		w.hasData = true
	}
	w.left.Store(true)
	w.queue.append(p, size)
	if w.data.Load() == 0 { // the user's Write has ended meanwhile: this was an answer, and came too late for its Send
		w.replies.Store(true)
	}
	return total, nil
}

// queued is how much waits to be sent, or is being sent.
func (w *writer) queued() (n int, sending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.len(), w.sending
}

// send sends all that is queued, and flushes inner where asked to. It ends with the call under way: an error
// leaves the rest queued.
func (w *writer) send(flush bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wantFlush = w.wantFlush || flush && w.flusher != nil
	for {
		switch {
		case w.sending:
			if err := w.waitLocked(); err != nil {
				return err
			}
		case w.queue.len() == 0 && !w.wantFlush:
			return nil
		case w.limits.native.Load():
			if err := w.pumpLocked(); err != nil {
				err, _ = w.limits.cause(err)
				return err
			}
		default:
			if err := w.limits.over(); err != nil {
				return err
			}
			if err := w.sendAsideLocked(); err != nil {
				return err
			}
		}
	}
}

// sendAsideLocked sends on a goroutine, for an inner stream without deadlines. The goroutine ends when inner's Write fails
// or has taken all, which may be after the call under way.
func (w *writer) sendAsideLocked() error {
	w.sending = true
	failed := make(chan struct{})
	var err error
	go func() {
		defer close(failed)
		w.mu.Lock()
		defer w.mu.Unlock()
		err = w.pumpLocked()
	}()
	w.mu.Unlock()
	over := w.limits.wait(failed)
	w.mu.Lock()
	if over != nil {
		return over
	}
	if err != nil {
		err, _ = w.limits.cause(err)
	}
	return err
}

// kick sends what is queued on a goroutine of its own, which ends with it: for what must not wait, and for which
// nobody may wait. onError, if not nil, learns of an error, which leaves the rest queued.
func (w *writer) kick(onError func(error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue.len() == 0 {
		w.replies.Store(false)
		return
	}
	w.wantFlush = w.flusher != nil
	if w.sending {
		w.replies.Store(false)
		return // whoever is at it goes on until the queue is empty
	}
	if err := w.limits.refresh(); err != nil {
		if onError != nil {
			onError(err)
		}
		return
	}
	w.replies.Store(false)
	w.sending = true
	go func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err := w.pumpLocked(); err != nil {
			w.replies.Store(true) // the next read, or a new deadline, tries again
			if onError != nil {
				err, _ = w.limits.cause(err)
				onError(err)
			}
		}
	}()
}

// waitLocked waits until whoever is sending stops, or until the call under way ends.
func (w *writer) waitLocked() error {
	if w.sent == nil {
		w.sent = make(chan struct{})
	}
	sent := w.sent
	w.mu.Unlock()
	defer w.mu.Lock()
	return w.limits.wait(sent)
}

// pumpLocked writes to inner until nothing is queued or inner fails.
func (w *writer) pumpLocked() error {
	w.sending = true
	err := w.broken
	if err == nil {
		err, w.fault = w.fault, nil
	}
	for err == nil && !w.released {
		p := w.queue.bytes()
		if len(p) == 0 {
			w.hasData = false
			if !w.wantFlush {
				break
			}
			w.wantFlush = false
			w.mu.Unlock()
			err = w.flusher.Flush()
			w.mu.Lock()
			w.wantFlush = w.wantFlush || err != nil
			continue
		}
		w.mu.Unlock()
		var n int
		n, err = w.inner.Write(p)
		w.mu.Lock()
		switch {
		case n < 0 || n > len(p):
			w.broken = errInvalidWrite
			err = errInvalidWrite
			continue
		case n < len(p) && err == nil:
			err = io.ErrShortWrite
		}
		w.queue.consume(n)
	}
	w.sending = false
	if w.released {
		w.queue.drop()
	}
	w.left.Store(w.queue.len() > 0)
	if w.sent != nil {
		close(w.sent)
		w.sent = nil
	}
	return err
}

// release drops what is queued, and what is written from now on.
func (w *writer) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.discard, w.released = true, true
	if !w.sending { // else who is at it does
		w.queue.drop()
	}
}
