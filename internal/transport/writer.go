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
	inner   io.Writer
	flusher interface{ Flush() error } // nil where inner has none
	limits  limits

	mu        sync.Mutex
	queue     buffer
	wantFlush bool          // inner is to be flushed once the queue is empty
	sending   bool          // somebody is at it
	sent      chan struct{} // closed and dropped when sending turns false; nil while nobody waits
	discard   bool          // nothing may follow what is queued
	appData   bool          // what is queued now is the user's, who will send it
	hasData   bool          // the queue has some of that
	replies   atomic.Bool   // the queue has what reading put there
	replied   atomic.Bool   // it had, since somebody asked
}

// write queues p. It never fails: see writer. Once the session is over in this direction it drops p, such as the
// answer to a key update after close_notify.
func (w *writer) write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.discard {
		return len(p), nil
	}
	if w.appData {
		w.hasData = true
	} else {
		w.replies.Store(true)
		w.replied.Store(true)
	}
	w.queue.append(p)
	return len(p), nil
}

// beginData says that what is queued from now on, about size bytes, is the user's; endData ends that.
func (w *writer) beginData(size int) {
	w.mu.Lock()
	w.appData = true
	if size > maxPlaintext {
		w.queue.reserve(batchBuffer)
	} else {
		w.queue.reserve(smallBuffer)
	}
	w.mu.Unlock()
}

func (w *writer) endData() {
	w.mu.Lock()
	w.appData = false
	w.mu.Unlock()
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
	w.wantFlush = w.wantFlush || flush && w.flusher != nil
	for {
		if !w.sending && w.queue.len() == 0 && !w.wantFlush {
			w.queue.drop()
			w.mu.Unlock()
			return nil
		}
		if w.sending {
			if err := w.waitLocked(); err != nil {
				w.mu.Unlock()
				return err
			}
			continue
		}
		direct, err := w.limits.enter()
		if err != nil {
			w.mu.Unlock()
			return err
		}
		w.sending = true
		w.mu.Unlock()
		if direct {
			err = w.pump()
			w.limits.leave()
			if err != nil {
				err, _ = w.limits.cause(err)
				return err
			}
		} else {
			failed := make(chan error, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				failed <- w.pump()
			}()
			if err := w.limits.wait(done); err != nil {
				return err
			}
			if err := <-failed; err != nil {
				err, _ = w.limits.cause(err)
				return err
			}
		}
		w.mu.Lock()
	}
}

// kick sends what is queued on a goroutine of its own, which ends with it: for what must not wait, and for which
// nobody may wait. onError, if not nil, learns of an error, which leaves the rest queued.
func (w *writer) kick(onError func(error)) {
	w.mu.Lock()
	w.replies.Store(false)
	if w.queue.len() == 0 {
		w.mu.Unlock()
		return
	}
	w.wantFlush = w.flusher != nil
	if w.sending {
		w.mu.Unlock()
		return // whoever is at it goes on until the queue is empty
	}
	direct, err := w.limits.enter()
	if err == nil {
		w.sending = true
	}
	w.mu.Unlock()
	if err != nil {
		if onError != nil {
			onError(err)
		}
		return
	}
	go func() {
		err := w.pump()
		if direct {
			w.limits.leave()
		}
		if err != nil && onError != nil {
			err, _ = w.limits.cause(err)
			onError(err)
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
	err := w.limits.wait(sent)
	w.mu.Lock()
	return err
}

// pump writes to inner until nothing is queued or inner fails. The caller has set sending; pump ends it.
func (w *writer) pump() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() {
		w.sending = false
		if w.sent != nil {
			close(w.sent)
			w.sent = nil
		}
	}()
	for {
		p := w.queue.bytes()
		if len(p) == 0 {
			w.queue.drop()
			w.hasData = false
			if !w.wantFlush {
				return nil
			}
			w.wantFlush = false
			w.mu.Unlock()
			err := w.flusher.Flush()
			w.mu.Lock()
			if err != nil {
				w.wantFlush = true
				return err
			}
			continue
		}
		w.mu.Unlock()
		n, err := w.inner.Write(p)
		w.mu.Lock()
		switch {
		case n < 0 || n > len(p):
			return errInvalidWrite
		case n < len(p) && err == nil:
			err = io.ErrShortWrite
		}
		w.queue.consume(n)
		if err != nil {
			return err
		}
	}
}
