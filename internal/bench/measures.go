package main

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

func measures() []measure {
	var all []measure
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		all = append(all, measure{fmt.Sprintf("bulk, writes of %s", kib(size)), func(s side, d time.Duration) ([]figure, error) { return bulk(s, size, d) }})
	}
	all = append(all,
		measure{"io.Copy both ways", copyBoth},
		measure{"ping-pong, 64 B", func(s side, d time.Duration) ([]figure, error) { return pingPong(s, 64, d) }},
		measure{"ping-pong, 4 KiB", func(s side, d time.Duration) ([]figure, error) { return pingPong(s, 4<<10, d) }},
	)
	for _, mutual := range []bool{false, true} {
		for _, resumed := range []bool{false, true} {
			name := "handshake, full"
			if resumed {
				name = "handshake, resumed"
			}
			if mutual {
				name += ", mutual"
			}
			all = append(all, measure{name, func(s side, d time.Duration) ([]figure, error) { return handshakes(s, mutual, resumed, d) }})
		}
	}
	all = append(all,
		measure{"memory after a handshake", func(s side, _ time.Duration) ([]figure, error) { return memory(s, 0) }},
		measure{"memory after 1 MiB", func(s side, _ time.Duration) ([]figure, error) { return memory(s, 1<<20) }},
	)
	return all
}

// checks is what a check of revocation adds to.
func checks() []measure {
	return []measure{
		{"revocation, full handshake", func(s side, d time.Duration) ([]figure, error) { return handshakes(s, false, false, d) }},
		{"revocation, resumed handshake", func(s side, d time.Duration) ([]figure, error) { return handshakes(s, false, true, d) }},
		{"revocation, full handshake, mutual", func(s side, d time.Duration) ([]figure, error) { return handshakes(s, true, false, d) }},
	}
}

func kib(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// usage is what a stretch of work took.
type usage struct {
	began time.Time
	cpu   time.Duration
	alloc uint64
}

func begin() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{time.Now(), processTime(), m.Mallocs}
}

// end returns the wall time, the processor time and the allocations since.
func (u usage) end() (wall, cpu time.Duration, allocs uint64) {
	wall, cpu = time.Since(u.began), processTime()-u.cpu
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return wall, cpu, m.Mallocs - u.alloc
}

// rates are the figures of a transfer.
func rates(bytes int64, u usage) []figure {
	wall, cpu, allocs := u.end()
	gb := float64(bytes) / 1e9
	return []figure{
		{"GB/s", gb / wall.Seconds(), "%.2f", true},
		{"CPU-s/GB", cpu.Seconds() / gb, "%.3f", false},
		{"allocations/MB", float64(allocs) / (gb * 1e3), "%.1f", false},
	}
}

// bulk sends as much as the time allows in writes of one size.
func bulk(s side, size int, d time.Duration) ([]figure, error) {
	client, server, err := s.pair(false, false)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer server.Close()
	return transfer(client, server, size, d)
}

func transfer(from io.WriteCloser, to io.Reader, size int, d time.Duration) ([]figure, error) {
	type result struct {
		n   int64
		err error
	}
	received := make(chan result, 1)
	buf := make([]byte, size)
	u := begin()
	go func() {
		var r result
		for buf := make([]byte, 64<<10); ; {
			n, err := to.Read(buf)
			r.n += int64(n)
			if err != nil {
				if err != io.EOF {
					r.err = err
				}
				received <- r
				return
			}
		}
	}()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range max(1, (256<<10)/size) {
			if _, err := from.Write(buf); err != nil {
				return nil, err
			}
		}
	}
	if c, ok := from.(interface{ CloseWrite() error }); ok {
		if err := c.CloseWrite(); err != nil {
			return nil, err
		}
	}
	r := <-received
	return rates(r.n, u), r.err
}

// copyBoth has io.Copy feed one end and drain the other.
func copyBoth(s side, d time.Duration) ([]figure, error) {
	client, server, err := s.pair(false, false)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer server.Close()
	type result struct {
		n   int64
		err error
	}
	received := make(chan result, 1)
	u := begin()
	go func() {
		n, err := io.Copy(io.Discard, server)
		received <- result{n, err}
	}()
	if _, err := io.Copy(client, &source{until: time.Now().Add(d)}); err != nil {
		return nil, err
	}
	if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return nil, err
	}
	r := <-received
	return rates(r.n, u), r.err
}

// source gives zeros until its time is over.
type source struct{ until time.Time }

func (s *source) Read(p []byte) (int, error) {
	if time.Now().After(s.until) {
		return 0, io.EOF
	}
	return len(p), nil
}

func pingPong(s side, size int, d time.Duration) ([]figure, error) {
	client, server, err := s.pair(false, false)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	defer server.Close()
	failed := make(chan error, 1)
	go func() {
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(server, buf); err != nil {
				failed <- nil
				return
			}
			if _, err := server.Write(buf); err != nil {
				failed <- err
				return
			}
		}
	}()
	u := begin()
	buf := make([]byte, size)
	trips := 0
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 50 {
			if _, err := client.Write(buf); err != nil {
				return nil, err
			}
			if _, err := io.ReadFull(client, buf); err != nil {
				return nil, err
			}
			trips++
		}
	}
	wall, cpu, allocs := u.end()
	return []figure{
		{"µs/round trip", wall.Seconds() * 1e6 / float64(trips), "%.2f", false},
		{"CPU µs/round trip", cpu.Seconds() * 1e6 / float64(trips), "%.2f", false},
		{"allocations", float64(allocs) / float64(trips), "%.1f", false},
	}, nil
}

func handshakes(s side, mutual, resumed bool, d time.Duration) ([]figure, error) {
	once := func() error {
		client, server, err := s.pair(mutual, resumed)
		if err != nil {
			return err
		}
		if resumed { // the ticket is read with the first data
			if _, err := server.Write([]byte{1}); err != nil {
				return err
			}
			if _, err := client.Read(make([]byte, 1)); err != nil {
				return err
			}
		}
		did := client.ConnectionState().DidResume
		if err := errors.Join(client.Close(), server.Close()); err != nil {
			return err
		}
		if did != resumed {
			return errors.New("not the kind of handshake that was meant")
		}
		return nil
	}
	if resumed {
		once() // the first is full
	}
	u := begin()
	n := 0
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		if err := once(); err != nil {
			return nil, err
		}
	}
	wall, cpu, allocs := u.end()
	return []figure{
		{"µs", wall.Seconds() * 1e6 / float64(n), "%.0f", false},
		{"CPU µs, both ends", cpu.Seconds() * 1e6 / float64(n), "%.0f", false},
		{"allocations, both ends", float64(allocs) / float64(n), "%.0f", false},
	}, nil
}

// memory is the heap that an idle connection keeps, both ends blocked in Read, after it carried so many bytes.
func memory(s side, carried int) ([]figure, error) {
	const connections = 100
	heap := func() uint64 {
		for range 3 { // pools are emptied by the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var all []conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	before := heap()
	for range connections {
		client, server, err := s.pair(false, false)
		if err != nil {
			return nil, err
		}
		all = append(all, client, server)
		if carried > 0 {
			sent := make(chan error, 1)
			go func() { _, err := client.Write(make([]byte, carried)); sent <- err }()
			if _, err := io.CopyN(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{server}, int64(carried)); err != nil {
				return nil, err
			}
			if err := <-sent; err != nil {
				return nil, err
			}
		}
		for _, c := range []conn{client, server} {
			go c.Read(make([]byte, 1))
		}
	}
	time.Sleep(20 * time.Millisecond) // all are blocked
	kept := heap() - before
	return []figure{{"bytes/connection, both ends", float64(kept) / connections, "%.0f", false}}, nil
}

// floors are what the bytes cost without TLS's own work, and what the protection alone costs.
func floors() []floorMeasure {
	return []floorMeasure{
		{"floor, plain TCP, writes of 64 KiB", func(d time.Duration) ([]figure, error) {
			l := newLoopback()
			defer l.listener.Close()
			a, b, err := l.pair()
			if err != nil {
				return nil, err
			}
			defer a.Close()
			defer b.Close()
			return transfer(a, b, 64<<10, d)
		}},
		{"floor, AES-128-GCM seal and open of 16 KiB", func(d time.Duration) ([]figure, error) {
			block, err := aes.NewCipher(make([]byte, 16))
			if err != nil {
				return nil, err
			}
			aead, err := cipher.NewGCM(block)
			if err != nil {
				return nil, err
			}
			nonce, plain := make([]byte, 12), make([]byte, 16<<10)
			sealed := make([]byte, 0, 17<<10)
			u := begin()
			var n int64
			for end := time.Now().Add(d); time.Now().Before(end); {
				for range 50 {
					sealed = aead.Seal(sealed[:0], nonce, plain, nil)
					if _, err := aead.Open(plain[:0], nonce, sealed, nil); err != nil {
						return nil, err
					}
					n += int64(len(plain))
				}
			}
			return rates(n, u), nil
		}},
	}
}
