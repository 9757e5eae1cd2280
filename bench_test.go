package sslstream_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// BenchmarkThroughput and the others pair a Stream with a tls.Conn. Compare them by internal/bench, which runs the two
// interleaved; these are for profiles.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		for _, kind := range []string{"raw", "stream"} {
			b.Run(fmt.Sprintf("%s/%dKiB", kind, size>>10), func(b *testing.B) {
				client, server := benchPair(b, kind)
				done := make(chan struct{})
				go func() {
					defer close(done)
					buf := make([]byte, 64<<10)
					for total := 0; total < b.N*size; {
						n, err := server.Read(buf)
						if err != nil {
							b.Error(err)
							return
						}
						total += n
					}
				}()
				buf := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if _, err := client.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
				<-done
			})
		}
	}
}

func BenchmarkPingPong(b *testing.B) {
	for _, kind := range []string{"raw", "stream"} {
		b.Run(kind, func(b *testing.B) {
			client, server := benchPair(b, kind)
			go io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{server})
			buf := make([]byte, 64)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := client.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchPair is an authenticated pair over TCP.
func benchPair(b *testing.B, kind string) (client, server net.Conn) {
	b.Helper()
	f := newFixture(b)
	if kind == "stream" {
		return newPair(b, f.clientOptions(), f.serverOptions())
	}
	x, y := testpki.TCP(b)
	c := tls.Client(x, &tls.Config{ServerName: serverName, RootCAs: testpki.Pool(f.root), DynamicRecordSizingDisabled: true})
	s := tls.Server(y, &tls.Config{Certificates: []tls.Certificate{f.server}, DynamicRecordSizingDisabled: true})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return c, s
}

var _ net.Conn = (*sslstream.Stream)(nil)
