//lint:file-ignore SA1019 x/net/http2 is deprecated in favour of net/http, which speaks HTTP/2 over a *tls.Conn only

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/sslstream/sslstream"
)

// How long requests under way may take once the server is to end.
const shutdownTimeout = 10 * time.Second

// serve serves handler on inner until ctx ends and the requests under way are answered.
func serve(ctx context.Context, inner net.Listener, cert *tls.Certificate, handler http.Handler) error {
	listener := sslstream.NewListener(inner, options(cert))
	defer listener.Close()
	listener.OnError = func(conn net.Conn, err error) {
		if ctx.Err() == nil {
			log.Printf("https: %v: %v", conn.RemoteAddr(), err)
		}
	}

	// net/http serves HTTP/1.1 over any connection, but HTTP/2 over a *tls.Conn only, so it gets the streams that are not
	// HTTP/2's. ConfigureServer lets its Shutdown end the HTTP/2 sessions in an orderly way too.
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return withStream(ctx, conn.(*sslstream.Stream))
		},
	}
	h2 := &http2.Server{}
	if err := http2.ConfigureServer(server, h2); err != nil {
		return err
	}
	http1 := &streams{next: make(chan net.Conn), closed: make(chan struct{}), address: listener.Addr()}
	http1Served := make(chan error, 1)
	go func() { http1Served <- server.Serve(http1) }()

	end, endNow := context.WithCancel(context.Background())
	defer endNow()
	var sessions sync.WaitGroup
	var failure error
	for {
		s, err := listener.AcceptStream(ctx)
		if err != nil {
			if ctx.Err() == nil {
				failure = err
			}
			break
		}
		if s.NegotiatedApplicationProtocol() != "h2" {
			http1.add(s)
			continue
		}
		sessions.Go(func() {
			defer s.Close()
			defer context.AfterFunc(end, func() { s.Close() })()
			h2.ServeConn(s, &http2.ServeConnOpts{Context: withStream(end, s), BaseConfig: server})
		})
	}

	listener.Close()
	timeout, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	context.AfterFunc(timeout, endNow)
	err := server.Shutdown(timeout)
	if err != nil {
		server.Close()
	}
	sessions.Wait()
	if serveErr := <-http1Served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	if end.Err() != nil {
		err = errors.Join(err, errors.New("https: some requests took too long to end"))
	}
	return errors.Join(failure, err)
}

// streams is a net.Listener of the streams that are added to it.
type streams struct {
	next    chan net.Conn
	once    sync.Once
	closed  chan struct{}
	address net.Addr
}

func (l *streams) add(s *sslstream.Stream) {
	select {
	case l.next <- s:
	case <-l.closed:
		s.Close()
	}
}

func (l *streams) Accept() (net.Conn, error) {
	select {
	case conn := <-l.next:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *streams) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *streams) Addr() net.Addr { return l.address }

type streamKey struct{}

// withStream lets handlers find the stream that their request came over.
func withStream(ctx context.Context, s *sslstream.Stream) context.Context {
	return context.WithValue(ctx, streamKey{}, s)
}

func streamOf(r *http.Request) *sslstream.Stream {
	return r.Context().Value(streamKey{}).(*sslstream.Stream)
}
