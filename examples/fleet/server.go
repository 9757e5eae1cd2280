package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/sslstream/sslstream"
)

// This file answers what one server of the fleet does.

// serverConfig is what a server is told by its parent.
type serverConfig struct {
	name, etcd, cert, key string
	period                time.Duration
}

// runServer serves until ctx ends. It prints its address once clients can come.
func runServer(ctx context.Context, c serverConfig, box *box, logf func(string, ...any)) error {
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	store, err := newStore(c.etcd, box)
	if err != nil {
		return err
	}
	defer store.close()
	opts := &sslstream.ServerOptions{ServerCertificate: &cert}
	keeper := &keeper{store: store, period: c.period, use: opts.SetSessionTicketKeys, logf: logf}
	keeper.sync(ctx) // before the first client; without etcd the keys are the server's own until it is there
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		keeper.run(ctx)
	}()
	defer func() { <-keeping }()

	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listener := sslstream.NewListener(inner, opts)
	defer listener.Close()
	listener.OnError = func(_ net.Conn, err error) { logf("%v", err) }
	fmt.Printf("listening on %v\n", listener.Addr())
	for {
		s, err := listener.AcceptStream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := echo(s, c.name); err != nil {
				logf("%v", err)
			}
		}()
	}
}

// echo tells the client who it speaks to and whether its session was resumed, then repeats its lines.
func echo(s *sslstream.Stream, name string) error {
	defer s.Close()
	if _, err := fmt.Fprintf(s, "%s resumed=%v\n", name, s.Security().Resumed); err != nil {
		return err
	}
	for lines := bufio.NewScanner(s); ; { // of 64 KiB at the most
		if !lines.Scan() {
			return lines.Err()
		}
		if _, err := s.Write(append(lines.Bytes(), '\n')); err != nil {
			return err
		}
	}
}
