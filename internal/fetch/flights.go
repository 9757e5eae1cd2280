package fetch

import (
	"context"
	"errors"
	"sync"
)

// Flights lets those who ask the same question at the same time share one piece of work. The zero value is ready to use, and
// safe for concurrent use.
type Flights[K comparable, V any] struct {
	mu     sync.Mutex
	flying map[K]*flight[V]
}

type flight[V any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // guarded by Flights.mu

	// Valid once done is closed.
	result  V
	err     error
	expired bool // by the deadline of who asked first
}

// Do returns what work returns, or ctx's error as soon as ctx ends: work does not keep anybody. It runs on a goroutine of
// its own, with a context that has the deadline of who asked first and is cancelled when nobody waits any more. So
// it must return soon after its context ends. Who joined, and has time left when the deadline of who asked first
// ends the work, has it done again.
func (f *Flights[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (V, error) {
	for {
		if err := ctx.Err(); err != nil {
			var none V
			return none, err
		}
		joined, own := f.join(ctx, key, work)
		select {
		case <-joined.done:
		case <-ctx.Done():
			f.leave(key, joined)
			var none V
			return none, ctx.Err()
		}
		switch {
		case !own && (joined.expired || errors.Is(joined.err, ErrBudget)):
			continue // that was the first asker's
		case joined.expired:
			<-ctx.Done() // at the same moment: who asks sees by it why
		}
		return joined.result, joined.err
	}
}

// join returns the flight for key, and whether it starts with this caller.
func (f *Flights[K, V]) join(ctx context.Context, key K, work func(context.Context) (V, error)) (joined *flight[V], own bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if joined = f.flying[key]; joined != nil {
		joined.waiting++
		return joined, false
	}
	started := &flight[V]{done: make(chan struct{}), waiting: 1}
	var working context.Context
	if deadline, ok := ctx.Deadline(); ok {
		working, started.cancel = context.WithDeadline(context.Background(), deadline)
	} else {
		working, started.cancel = context.WithCancel(context.Background())
	}
	if f.flying == nil {
		f.flying = map[K]*flight[V]{}
	}
	f.flying[key] = started
	go func() {
		defer started.cancel()
		result, err := work(working)
		f.mu.Lock()
		if f.flying[key] == started {
			delete(f.flying, key)
		}
		f.mu.Unlock()
		started.result, started.err = result, err
		started.expired = err != nil && errors.Is(working.Err(), context.DeadlineExceeded)
		close(started.done)
	}()
	return started, true
}

// leave gives up waiting, and the work with the last who does.
func (f *Flights[K, V]) leave(key K, left *flight[V]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if left.waiting--; left.waiting > 0 {
		return
	}
	left.cancel()
	if f.flying[key] == left {
		delete(f.flying, key) // who comes now must not join what is being cancelled
	}
}
