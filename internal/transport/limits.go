package transport

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// limits decides when a call in one direction has to end: at the deadline, at the call's own timeout, with its
// context, or when the stream is closed. Where inner has deadlines they are used, and inner is called on the caller's
// goroutine. Elsewhere inner is called on a goroutine that the caller waits for and can leave behind.
//
// Calls of one direction are made one at a time; the methods may be called at any moment.
type limits struct {
	mu       sync.Mutex
	set      func(time.Time) error // inner's deadline; nil where it has none
	deadline time.Time             // the user's
	applied  time.Time             // inner's, as far as it was set here
	busy     int                   // inner's calls under way that the deadline must reach
	closed   error                 // ends every call, from now on
	changed  chan struct{}         // closed and dropped when any of this changes; nil while nobody waits

	// The call under way.
	seq     uint64    // tells a late end of one call's context from the next call's
	timeout time.Time // zero: none
	ended   error     // why it must end: its context's error, or a failure in the other direction
	stop    func() bool
}

// begin starts a call that ends with ctx or after timeout (0: never). It fails where the call
// would end at once. end must follow in any case.
func (l *limits) begin(ctx context.Context, timeout time.Duration) error {
	l.mu.Lock()
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
		l.stop = context.AfterFunc(ctx, func() { l.fail(seq, ctx.Err()) })
	}
	return l.over()
}

// end ends the call. An inner call that outlives it (a ticket that nobody reads yet) is no longer bound by it.
func (l *limits) end() {
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	l.mu.Lock()
	l.seq++
	if !l.timeout.IsZero() || l.ended != nil {
		interrupted := l.ended != nil
		l.timeout = time.Time{}
		l.ended = nil
		l.applyLocked()
		if interrupted {
			l.applyDeadlineLocked() // the deadline in the past that ended it must not stay on inner
		}
	}
	l.mu.Unlock()
}

// call is the number of the call under way, for fail.
func (l *limits) call() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// fail ends call seq, if it still is under way, with err.
func (l *limits) fail(seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seq == seq && l.ended == nil {
		l.ended = err
		l.applyLocked()
	}
}

// setDeadline sets the user's deadline, also for the call under way.
func (l *limits) setDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	l.applyLocked()
}

// setTimeout gives the call under way another timeout.
func (l *limits) setTimeout(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = time.Now().Add(d)
}

// close ends every call with err; nil lets calls be made again.
func (l *limits) close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = err
	l.applyLocked()
}

// over returns why the call under way has to end, nil if it may go on.
func (l *limits) over() error {
	l.mu.Lock()
	defer l.mu.Unlock()
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

var past = time.Unix(1, 0)

// applyLocked brings a change to the calls under way.
func (l *limits) applyLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if l.busy == 0 {
		return // the next enter sets it
	}
	l.applyDeadlineLocked()
}

// applyDeadlineLocked sets inner's deadline where it isn't what it must be. An inner that turns out to have
// none after all (an *os.File on what cannot be polled) is treated as one without from then on.
func (l *limits) applyDeadlineLocked() {
	if l.set == nil {
		return
	}
	want := l.untilLocked()
	if l.closed != nil || l.ended != nil {
		want = past
	}
	if want.Equal(l.applied) {
		return
	}
	if err := l.set(want); err != nil && errors.Is(err, os.ErrNoDeadline) {
		l.set = nil
		return
	}
	l.applied = want
}

// enter is called before each call of inner, and leave after it. direct says that inner has deadlines, which
// are set now: it can be called on the caller's goroutine.
func (l *limits) enter() (direct bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.overLocked(); err != nil {
		return false, err
	}
	if l.set != nil {
		l.applyDeadlineLocked()
	}
	if l.set == nil {
		return false, nil
	}
	l.busy++
	return true, nil
}

func (l *limits) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
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
		l.mu.Lock()
		err, until := l.overLocked(), l.untilLocked()
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		if err != nil {
			select {
			case <-done:
				return nil
			default:
				return err
			}
		}
		var expired <-chan time.Time
		var timer *time.Timer
		if !until.IsZero() {
			timer = time.NewTimer(time.Until(until))
			expired = timer.C
		}
		finished := false
		select {
		case <-done:
			finished = true
		case <-changed:
		case <-expired:
		}
		if timer != nil {
			timer.Stop()
		}
		if finished {
			return nil
		}
	}
}

// native reports whether inner has deadlines.
func (l *limits) native() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set != nil
}

// settle leaves no deadline on inner but the user's.
func (l *limits) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.applied.IsZero() {
		l.applyDeadlineLocked()
	}
}

// release takes back what was set on inner.
func (l *limits) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set != nil && !l.applied.IsZero() {
		l.set(time.Time{})
		l.applied = time.Time{}
	}
}
