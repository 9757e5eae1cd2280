// Reload serves a certificate that may be renewed at any time: the files are looked at again in short intervals, and at once
// on SIGHUP, and whoever connects from then on is shown the new certificate. Nobody who is connected notices. Each client is
// told which certificate it was shown.
//
//	go run ./examples/reload -cert cert.pem -key key.pem [-address 127.0.0.1:8443] [-every 1m]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sslstream/sslstream"
)

func main() {
	log.SetFlags(0)
	address := flag.String("address", "127.0.0.1:8443", "where to listen")
	certFile := flag.String("cert", "", "the certificate and its intermediates, PEM (required)")
	keyFile := flag.String("key", "", "its private key, PEM (required)")
	every := flag.Duration("every", time.Minute, "how often to look at the files")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *address, *certFile, *keyFile, *every); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, certFile, keyFile string, every time.Duration) error {
	if every <= 0 {
		return errors.New("reload: -every must be positive")
	}
	certificate, err := newCertificate(certFile, keyFile)
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	go certificate.watch(ctx, every, hangup, log.Printf)

	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("Waiting for clients on %v...\n", listener.Addr())
	return serve(ctx, listener, certificate)
}

// serve tells each client about its certificate, until ctx ends.
func serve(ctx context.Context, inner net.Listener, certificate *certificate) error {
	// One value for all clients: it owns the keys of the session tickets, which go on being good after a reload. A ticket
	// that was made under a certificate that is gone is not taken: a full handshake shows the new one.
	listener := sslstream.NewListener(inner, &sslstream.ServerOptions{ServerCertificateSelectionCallback: certificate.pick})
	defer listener.Close()
	listener.OnError = func(_ net.Conn, err error) { log.Print(err) }
	for {
		s, err := listener.AcceptStream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			if err := answer(s); err != nil {
				log.Print(err)
			}
		}()
	}
}

func answer(s *sslstream.Stream) error {
	defer s.Close()
	s.SetWriteTimeout(5 * time.Second)
	_, err := fmt.Fprintf(s, "certificate %v, resumed %v\n", s.LocalCertificate().SerialNumber, s.Security().Resumed)
	if err != nil {
		return err
	}
	// An orderly end: close_notify first, then the client's.
	if err := s.CloseWrite(); err != nil {
		return err
	}
	s.SetReadTimeout(5 * time.Second)
	_, err = io.Copy(io.Discard, s)
	return err
}
