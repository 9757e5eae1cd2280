package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// This file answers how the keys get from etcd to a server, and which server makes new ones.

// place is where the ring is in etcd.
const place = "/sslstream/fleet/ticket-keys"

// store is the ring in etcd.
type store struct {
	client *clientv3.Client
	box    *box
}

func newStore(endpoint string, box *box) (*store, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{endpoint},
		DialTimeout:          2 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
	})
	return &store{client, box}, err
}

func (s *store) close() { s.client.Close() }

// refusedError is a value in etcd that is none of ours.
type refusedError struct{ err error }

func (e *refusedError) Error() string {
	return fmt.Sprintf("refusing the value of %s in etcd: %v; delete it to have new keys made", place, e.err)
}

// load returns the ring and its revision, 0 where there is none.
func (s *store) load(ctx context.Context) (ring, int64, error) {
	got, err := s.client.Get(ctx, place)
	if err != nil || len(got.Kvs) == 0 {
		return ring{}, 0, err
	}
	kv := got.Kvs[0]
	r, err := s.box.open(kv.Value, place)
	if err != nil {
		return ring{}, 0, &refusedError{err}
	}
	return r, kv.ModRevision, nil
}

// replace stores a ring where the revision still is the one that was loaded: of several servers that rotate at once, one
// does.
func (s *store) replace(ctx context.Context, r ring, revision int64) (bool, error) {
	sealed, err := s.box.seal(r, place)
	if err != nil {
		return false, err
	}
	done, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(place), "=", revision)).
		Then(clientv3.OpPut(place, string(sealed))).
		Commit()
	return err == nil && done.Succeeded, err
}

// changes tells when the ring may have changed, until ctx ends.
func (s *store) changes(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			for range s.client.Watch(ctx, place) {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
			select { // the watch was given up: etcd compacted what it was to go on with, or is gone
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return changed
}

// keeper gives a server the newest keys.
type keeper struct {
	store  *store
	period time.Duration
	use    func([][32]byte) error
	logf   func(string, ...any)

	current ring
	trouble string // what was said last about etcd, so that it is said once
}

// run looks at etcd now, whenever the ring changes there, and in any case several times in a period, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	changed := k.store.changes(ctx)
	tick := time.NewTicker(min(k.period/4, time.Minute))
	defer tick.Stop()
	for {
		k.sync(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// sync brings the keys up to date, and rotates them where it is time. Without etcd, or with something in it that is not
// ours, the server goes on with the keys it has.
func (k *keeper) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := k.newest(ctx)
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		k.say(refused.Error(), fmt.Sprintf("%v. Going on with the %d keys there are", refused, len(k.current.Keys)))
		return
	case err != nil:
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			k.say("lost etcd", fmt.Sprintf("lost etcd, going on with the %d keys there are: %v", len(k.current.Keys), err))
		}
		return
	}
	if k.trouble != "" {
		k.trouble = ""
		k.logf("etcd is back")
	}
	if r.equal(k.current) {
		return
	}
	if err := k.use(r.inUse()); err != nil {
		k.logf("the keys cannot be used: %v", err)
		return
	}
	k.current = r
	k.logf("%d keys, the newest made at %s", len(r.Keys), r.Keys[0].Made.Format("15:04:05.000"))
}

// newest is the ring in etcd, after a rotation where it was time for one.
func (k *keeper) newest(ctx context.Context) (ring, error) {
	for {
		r, revision, err := k.store.load(ctx)
		if err != nil || !r.due(time.Now(), k.period) {
			return r, err
		}
		next := r.rotated(time.Now())
		if done, err := k.store.replace(ctx, next, revision); err != nil || done {
			return next, err
		}
		// Another server was faster: take what it made.
	}
}

// say logs trouble when it begins or changes, not again while its words do.
func (k *keeper) say(trouble, words string) {
	if trouble != k.trouble {
		k.logf("%s", words)
	}
	k.trouble = trouble
}
