package sslstream

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream/internal/testpki"
)

// TestLock has many who want the lock, some of whom give up: it is one's at a time, and who waits gets it. In a bubble a
// wake-up that is lost is a deadlock, which fails the test.
func TestLock(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the race detector can crash otherwise (golang.org/issue/78156)
	for seed := range uint64(50) {
		testpki.Bubble(t, func(t *testing.T) {
			var l lock
			var users sync.WaitGroup
			holders, taken, given := 0, 0, 0 // guarded by l, as the race detector sees
			for i := range uint64(20) {
				chance := rand.New(rand.NewPCG(seed, i))
				users.Go(func() {
					for range 30 {
						ctx, cancel, d := context.Background(), context.CancelFunc(func() {}), time.Duration(0)
						wait := time.Duration(1+chance.IntN(20)) * time.Millisecond
						began := time.Now()
						var err error
						kind := chance.IntN(5)
						switch kind {
						case 0:
							d = wait
						case 1:
							ctx, cancel = context.WithTimeout(ctx, wait)
						case 2:
							ctx, cancel = context.WithCancel(ctx)
							time.AfterFunc(wait, cancel)
						case 3:
							if !l.try() {
								continue
							}
						}
						if kind != 3 {
							var rest time.Duration
							rest, err = l.take(ctx, d)
							if err == nil && d > 0 {
								assert.Equal(t, max(1, d-time.Since(began)), rest)
							}
						}
						cancel()
						if err != nil {
							assert.Equal(t, wait, time.Since(began), "no sooner and no later")
							assert.Equal(t, map[int]error{0: os.ErrDeadlineExceeded, 1: context.DeadlineExceeded, 2: context.Canceled}[kind], err)
							continue
						}
						holders++
						taken++
						assert.Equal(t, 1, holders)
						if chance.IntN(2) == 0 {
							time.Sleep(time.Duration(chance.IntN(3)) * time.Millisecond)
						}
						assert.Equal(t, 1, holders)
						holders--
						given++
						l.give()
					}
				})
			}
			users.Wait()
			assert.NotZero(t, taken)
			assert.Equal(t, taken, given)
			assert.True(t, l.try(), "free at the end")
		})
	}
}

// TestLockOnThreads is the same outside a bubble, where goroutines really run at once.
func TestLockOnThreads(t *testing.T) {
	var l lock
	var users sync.WaitGroup
	count, want := 0, 0
	var mu sync.Mutex
	for i := range uint64(8) {
		chance := rand.New(rand.NewPCG(1, i))
		users.Go(func() {
			for range 3000 {
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if chance.IntN(3) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(chance.IntN(20_000)))
				}
				_, err := l.take(ctx, time.Duration(chance.IntN(2))*time.Minute)
				cancel()
				if err != nil {
					continue
				}
				count++
				l.give()
				mu.Lock()
				want++
				mu.Unlock()
			}
		})
	}
	users.Wait()
	assert.Equal(t, want, count)
	assert.NotZero(t, count)
}

// TestLockOfOneWhoEnded takes a free lock with a context that has ended.
func TestLockOfOneWhoEnded(t *testing.T) {
	var l lock
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := l.take(ctx, 0)
	require.Equal(t, context.Canceled, err)
	assert.True(t, l.try(), "it was not taken")
}
