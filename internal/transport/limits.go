package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// limits decides when a call in one direction has to end: at the deadline, at the call's own timeout, with its
// context, or when the stream is closed. Where inner has deadlines they are used, and inner is called on the caller's
// goroutine. Elsewhere inner is called on a goroutine that the caller waits for and can leave behind.
//
// Calls of one direction are made one at a time; the methods may be called at any moment.
type limits struct {
	native  atomic.Bool // inner has deadlines
	armed   atomic.Bool // something bounds calls, or inner's deadline is not the user's: begin has to look
	bounded bool        // the call under way has bounds of its own; only for the goroutine that makes it

	mu  sync.Mutex
	set func(time.Time) error // inner's deadline; nil where it has none
	seq uint64                // tells a late end of one call's context from the next call's
	// tried says that inner's deadlines are known to work or not to. It has to be known before a call of inner that only a
	// deadline can end.
	tried bool
	*bounds
}

// bounds are the limits that there are. Most streams have none, and idle ones should not keep the memory.
type bounds struct {
	deadline time.Time     // the user's
	applied  time.Time     // inner's, as far as it was set here
	closed   error         // ends every call, from now on
	changed  chan struct{} // closed and dropped when any of this changes; nil while nobody waits

	// The call under way.
	timeout time.Time // zero: none
	ended   error     // why it must end: its context's error, or a failure in the other direction
	stop    func() bool
}

// lock takes mu, with bounds to look at and to set.
func (l *limits) lock() {
	l.mu.Lock()
	if l.bounds == nil {
		l.bounds = new(bounds)
	}
}

// use makes set inner's deadline; sure says that it works.
func (l *limits) use(set func(time.Time) error, sure bool) {
	l.set, l.tried = set, sure
	l.native.Store(true)
}

// begin starts a call that ends with ctx or after timeout (0: never). It fails where the call would end at once. end
// must follow in any case.
func (l *limits) begin(ctx context.Context, timeout time.Duration) error {
	if ctx.Done() == nil && timeout <= 0 && !l.armed.Load() {
		return nil
	}
	return l.beginSlow(ctx, timeout)
}

func (l *limits) beginSlow(ctx context.Context, timeout time.Duration) error {
	if ctx.Done() == nil && timeout <= 0 {
		return l.refresh()
	}
	return l.beginBounded(ctx, timeout)
}

// beginBounded is begin for a call that fail or setTimeout may end.
func (l *limits) beginBounded(ctx context.Context, timeout time.Duration) error {
	l.bounded = true
	l.lock()
	l.seq++
	seq := l.seq
	l.ended = nil
	l.timeout = time.Time{}
	if timeout > 0 {
		l.timeout = time.Now().Add(timeout)
	}
	l.mu.Unlock()
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { l.fail(seq, ctx.Err()) })
		l.lock()
		l.stop = stop
		if !l.tried && l.set != nil {
			l.setLocked(l.applied)
		}
		l.mu.Unlock()
	}
	return l.refresh()
}

// refresh brings inner's deadline up to date. It returns why the call under way has to end, nil if it may go on.
func (l *limits) refresh() error {
	l.lock()
	defer l.mu.Unlock()
	err := l.overLocked()
	if err == nil {
		l.applyLocked()
	}
	return err
}

// end ends the call. An inner call that outlives it (a ticket that nobody reads yet) is no longer bound by it.
func (l *limits) end() {
	if l.bounded {
		l.endBounded()
	}
}

func (l *limits) endBounded() {
	l.bounded = false
	l.lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	l.seq++
	l.timeout = time.Time{}
	if l.ended != nil { // the deadline in the past that ended it must not stay on inner
		l.ended = nil
		l.changedLocked()
		l.applyLocked()
		return
	}
	// A timeout that did not expire may stay on inner until somebody needs it gone: mostly that is the next call's.
	l.armed.Store(true)
}

// call is the number of the call under way, for fail.
func (l *limits) call() uint64 {
	l.lock()
	defer l.mu.Unlock()
	return l.seq
}

// fail ends call seq, if it still is under way, with err.
func (l *limits) fail(seq uint64, err error) {
	l.lock()
	defer l.mu.Unlock()
	if l.seq == seq && l.ended == nil {
		l.ended = err
		l.changedLocked()
		l.applyLocked()
	}
}

// setDeadline sets the user's deadline, also for the call under way.
func (l *limits) setDeadline(t time.Time) {
	l.lock()
	defer l.mu.Unlock()
	l.deadline = t
	l.changedLocked()
	l.applyLocked()
}

// setTimeout gives the call under way another timeout.
func (l *limits) setTimeout(d time.Duration) {
	l.lock()
	defer l.mu.Unlock()
	l.timeout = time.Now().Add(d)
	l.changedLocked()
	l.applyLocked()
}

// close ends every call with err; nil lets calls be made again.
func (l *limits) close(err error) {
	l.lock()
	defer l.mu.Unlock()
	l.closed = err
	l.changedLocked()
	l.applyLocked()
}

// over returns why the call under way has to end, nil if it may go on.
func (l *limits) over() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bounds == nil {
		return nil
	}
	return l.overLocked()
}

func (l *limits) overLocked() error {
	switch {
	case l.closed != nil:
		return l.closed
	case l.ended != nil:
		return l.ended
	}
	if t := l.untilLocked(); !t.IsZero() && !time.Now().Before(t) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// untilLocked is the earlier of the deadline and the call's timeout; zero: neither.
func (l *limits) untilLocked() time.Time {
	if l.timeout.IsZero() || !l.deadline.IsZero() && l.deadline.Before(l.timeout) {
		return l.deadline
	}
	return l.timeout
}

// changedLocked wakes who waits.
func (l *limits) changedLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

var past = time.Unix(1, 0)

// applyLocked sets inner's deadline where it isn't what it must be.
func (l *limits) applyLocked() {
	l.armed.Store(l.closed != nil || !l.deadline.IsZero() || !l.timeout.IsZero())
	if l.set == nil {
		return
	}
	want := l.untilLocked()
	if l.closed != nil || l.ended != nil {
		want = past
	}
	if !want.Equal(l.applied) {
		l.setLocked(want)
	}
}

// setLocked sets inner's deadline. An inner that turns out to have none after all (an *os.File on what cannot be polled, a
// channel of an SSH connection) is treated as one without from then on.
func (l *limits) setLocked(t time.Time) {
	l.tried = true
	if err := l.set(t); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		l.set = nil
		l.native.Store(false)
		return
	}
	l.applied = t
}

// cause is the reason for an error that inner returned. ended says that it is the end of the call rather than a
// fault: inner's deadline was set here for one of several reasons.
func (l *limits) cause(err error) (cause error, ended bool) {
	over := l.over()
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		if over == nil {
			over = os.ErrDeadlineExceeded
		}
		return over, true
	}
	if over != nil && errors.Is(over, net.ErrClosed) {
		return over, true
	}
	return err, false
}

// wait returns nil once done is closed, or why the call has to end before.
func (l *limits) wait(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		default:
		}
		l.lock()
		err, until := l.overLocked(), l.untilLocked()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if err != nil {
			return err
		}
		var expired <-chan time.Time
		var timer *time.Timer
		if !until.IsZero() {
			timer = time.NewTimer(time.Until(until))
			expired = timer.C
		}
		select {
		case <-done:
		case <-changed:
		case <-expired:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// settle leaves no deadline on inner but the user's. No call may be under way.
func (l *limits) settle() {
	l.lock()
	defer l.mu.Unlock()
	l.applyLocked()
	if !l.armed.Load() {
		l.bounds = nil
	}
}

// release takes back what was set on inner, and sets nothing from now on.
func (l *limits) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set != nil && l.bounds != nil && !l.applied.IsZero() {
		l.set(time.Time{})
		l.applied = time.Time{}
	}
	l.set = nil
	l.native.Store(false)
}
