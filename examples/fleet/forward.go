package main

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// This file answers which server a client gets: each in turn, of those that are alive.

// forwarder hands connections to backends.
type forwarder struct {
	mu       sync.Mutex
	backends []string
	next     int
}

func (f *forwarder) add(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = append(f.backends, address)
}

func (f *forwarder) remove(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = slices.DeleteFunc(f.backends, func(b string) bool { return b == address })
}

// dial connects to the next backend, or to another one where that fails.
func (f *forwarder) dial() (net.Conn, error) {
	f.mu.Lock()
	order := slices.Concat(f.backends, f.backends)
	if n := len(f.backends); n > 0 {
		f.next = (f.next + 1) % n
		order = order[f.next : f.next+n]
	}
	f.mu.Unlock()
	err := errors.New("fleet: no server is alive")
	for _, address := range order {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", address, 2*time.Second); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// serve forwards until listener is closed.
func (f *forwarder) serve(listener net.Listener, logf func(string, ...any)) {
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors are left, say, which passes
			logf("%v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			defer client.Close()
			server, err := f.dial()
			if err != nil {
				logf("%v", err)
				return
			}
			defer server.Close()
			var both sync.WaitGroup
			both.Go(func() { pass(server, client) })
			both.Go(func() { pass(client, server) })
			both.Wait()
		}()
	}
}

// pass copies one way, and passes on how it ended: where from is gone, so is the way back.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	to.(*net.TCPConn).CloseWrite()
}
