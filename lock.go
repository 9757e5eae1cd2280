package sslstream

import (
	"context"
	"os"
	"sync/atomic"
	"time"
)

// lock is a mutex that can be waited for with a bound. The zero value is free.
type lock struct {
	state atomic.Int32 // free, held, or contended
	woken atomic.Pointer[chan struct{}]
}

const (
	free int32 = iota
	held
	contended // held, and somebody may wait for woken
)

func (l *lock) try() bool { return l.state.CompareAndSwap(free, held) }

// take waits for the lock until ctx ends or for d (0: for ever). rest is what the wait left of d: one call has one timeout.
func (l *lock) take(ctx context.Context, d time.Duration) (rest time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if l.try() {
		return d, nil
	}
	woken := l.woken.Load()
	if woken == nil {
		c := make(chan struct{}, 1)
		l.woken.CompareAndSwap(nil, &c)
		woken = l.woken.Load()
	}
	var expired <-chan time.Time
	var began time.Time
	if d > 0 {
		began = time.Now()
		timer := time.NewTimer(d)
		defer timer.Stop()
		expired = timer.C
	}
	// Who takes it now leaves it contended, because there may be others who wait.
	for l.state.Swap(contended) != free {
		select {
		case <-*woken:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		}
	}
	if d > 0 {
		d = max(1, d-time.Since(began))
	}
	return d, nil
}

func (l *lock) give() {
	if l.state.Swap(free) == contended {
		select {
		case *l.woken.Load() <- struct{}{}:
		default: // somebody was woken already and will look
		}
	}
}
