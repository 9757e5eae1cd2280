// Client is the client of the classic pair from SslStream's documentation: it authenticates the server, prints what was
// negotiated, sends a message that ends in "<EOF>" and reads one. Where it refuses the server it prints each certificate of
// the chain with what is wrong with it. Reads and writes time out after 5 s.
//
//	go run ./examples/client [-address 127.0.0.1:8443] [-host localhost] [-ca ca.pem] [-cert cert.pem -key key.pem]
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
	address := flag.String("address", "127.0.0.1:8443", "the server's address")
	host := flag.String("host", "localhost", "the name that its certificate must have")
	ca := flag.String("ca", "", "trust these roots only, PEM; the system's otherwise")
	certFile := flag.String("cert", "", "the client's certificate, PEM, for servers that ask for one")
	keyFile := flag.String("key", "", "its private key, PEM")
	var protocols sslstream.Protocols
	flag.TextVar(&protocols, "protocols", sslstream.ProtocolSystemDefault, `the protocols to offer, such as "TLS12|TLS13"`)
	flag.Parse()
	if err := run(*address, *host, *ca, *certFile, *keyFile, protocols); err != nil {
		log.Fatal(err)
	}
}

func run(address, host, ca, certFile, keyFile string, protocols sslstream.Protocols) error {
	opts := &sslstream.ClientOptions{
		TargetHost:                          host,
		EnabledProtocols:                    protocols,
		RemoteCertificateValidationCallback: validateServerCertificate,
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("client: no certificates in %s", ca)
		}
		opts.CertificateChainPolicy = &sslstream.ChainPolicy{CustomTrustStore: roots}
	}
	if (certFile == "") != (keyFile == "") {
		return errors.New("client: -cert and -key belong together")
	}
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return err
		}
		opts.ClientCertificates = []tls.Certificate{cert}
	}

	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	fmt.Println("Client connected.")
	s := sslstream.New(conn)
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return err
	}
	display.Stream(s)

	s.SetReadTimeout(5 * time.Second)
	s.SetWriteTimeout(5 * time.Second)
	if _, err := io.WriteString(s, "Hello from the client."+message.End); err != nil {
		return fmt.Errorf("client: writing: %w", err)
	}
	text, err := message.Read(s)
	if err != nil {
		return fmt.Errorf("client: reading the server's message: %w", err)
	}
	fmt.Printf("Server says: %s\n", text)

	// An orderly end: close_notify first, then the server's.
	if err := s.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s); err != nil {
		return fmt.Errorf("client: waiting for the server's end: %w", err)
	}
	fmt.Printf("The server ended the session in an orderly way: %v\n", s.ReceivedCloseNotify())
	return nil
}

// validateServerCertificate is the default verdict; it prints why where that is a refusal.
func validateServerCertificate(_ context.Context, _ *sslstream.Stream, _ *x509.Certificate, chain *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
	if errs == 0 {
		return 0, nil
	}
	fmt.Printf("Certificate error: %v\n", errs)
	for i, element := range chain.Elements {
		fmt.Printf("Chain element %d: %s, issued by %s\n", i, element.Certificate.Subject, element.Certificate.Issuer)
		for _, status := range element.Status {
			fmt.Printf("  %v: %s\n", status.Flag, status.Detail)
		}
	}
	return errs, nil
}
