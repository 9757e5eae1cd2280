// Server is the server of the classic pair from SslStream's documentation: it authenticates each client, prints what was
// negotiated, reads a message that ends in "<EOF>" and answers with one. Reads and writes time out after 5 s.
//
//	go run ./examples/server -cert cert.pem -key key.pem [-address 127.0.0.1:8443] [-client-ca ca.pem] [-once]
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/examples/internal/display"
	"github.com/sslstream/sslstream/examples/internal/message"
)

func main() {
	log.SetFlags(0)
	address := flag.String("address", "127.0.0.1:8443", "where to listen")
	certFile := flag.String("cert", "", "the server's certificate and its intermediates, PEM (required)")
	keyFile := flag.String("key", "", "its private key, PEM (required)")
	clientCA := flag.String("client-ca", "", "require a client certificate from these roots, PEM")
	once := flag.Bool("once", false, "end after one client")
	var protocols sslstream.Protocols
	flag.TextVar(&protocols, "protocols", sslstream.ProtocolSystemDefault, `the protocols to speak, such as "TLS12|TLS13"`)
	flag.Parse()
	if err := run(*address, *certFile, *keyFile, *clientCA, protocols, *once); err != nil {
		log.Fatal(err)
	}
}

func run(address, certFile, keyFile, clientCA string, protocols sslstream.Protocols, once bool) error {
	if certFile == "" || keyFile == "" {
		return errors.New("server: -cert and -key are required")
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	opts := &sslstream.ServerOptions{ServerCertificate: &cert, EnabledProtocols: protocols}
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("server: no certificates in %s", clientCA)
		}
		opts.ClientCertificateRequired = true
		opts.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: roots}
		opts.SendTrustInHandshake = true
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Printf("Waiting for a client to connect to %v...\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if once {
			return serve(conn, opts)
		}
		go func() {
			if err := serve(conn, opts); err != nil {
				log.Print(err)
			}
		}()
	}
}

// serve is one client.
func serve(conn net.Conn, opts *sslstream.ServerOptions) error {
	s := sslstream.New(conn)
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.AuthenticateAsServer(ctx, opts); err != nil {
		return err
	}
	display.Stream(s)

	s.SetReadTimeout(5 * time.Second)
	s.SetWriteTimeout(5 * time.Second)
	fmt.Println("Waiting for client message...")
	text, err := message.Read(s)
	if err != nil {
		return fmt.Errorf("server: reading the client's message: %w", err)
	}
	fmt.Printf("Received: %s\n", text)
	fmt.Println("Sending hello message.")
	if _, err := io.WriteString(s, "Hello from the server."+message.End); err != nil {
		return fmt.Errorf("server: writing: %w", err)
	}

	// An orderly end: close_notify first, then the client's.
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return fmt.Errorf("server: waiting for the client's end: %w", err)
	}
	fmt.Printf("The client ended the session in an orderly way: %v\n", s.ReceivedCloseNotify())
	return nil
}
