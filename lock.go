package sslstream

import (
	"context"
	"os"
	"time"
)

// lock is a mutex that can be waited for with a bound.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) try() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// take waits for the lock until ctx ends or for d (0: for ever). rest is what the wait left of d: one call has one timeout.
func (l lock) take(ctx context.Context, d time.Duration) (rest time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if l.try() {
		return d, nil
	}
	if d <= 0 {
		select {
		case l <- struct{}{}:
			return 0, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	began := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case l <- struct{}{}:
		return max(1, d-time.Since(began)), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
		return 0, os.ErrDeadlineExceeded
	}
}

func (l lock) give() { <-l }
