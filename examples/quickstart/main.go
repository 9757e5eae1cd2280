// Quickstart shows the main job: a server and a client authenticate each other over loopback TCP and exchange a message;
// then a client that does not trust the server refuses it and says why. It needs no arguments and writes no files.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"time"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/examples/internal/display"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// A private certificate authority, and a certificate for either side.
	root, rootKey, err := newAuthority("Quickstart Root")
	if err != nil {
		return err
	}
	serverCert, err := issue(root, rootKey, "server.example", x509.ExtKeyUsageServerAuth)
	if err != nil {
		return err
	}
	clientCert, err := issue(root, rootKey, "client.example", x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	trust := x509.NewCertPool()
	trust.AddCert(root)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	served := make(chan error, 2)
	go func() {
		for range 2 {
			served <- serve(ctx, listener, &sslstream.ServerOptions{
				ServerCertificate:         serverCert,
				ClientCertificateRequired: true,
				CertificateChainPolicy:    &sslstream.ChainPolicy{CustomTrustStore: trust},
			})
		}
	}()

	fmt.Println("— A client that trusts the server —")
	err = talk(ctx, listener.Addr().String(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		ClientCertificates:     []tls.Certificate{*clientCert},
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: trust},
	})
	if err != nil {
		return err
	}
	if err := <-served; err != nil {
		return err
	}

	fmt.Println("\n— A client that does not —")
	err = talk(ctx, listener.Addr().String(), &sslstream.ClientOptions{
		TargetHost:             "other.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: x509.NewCertPool()},
	})
	var refused *sslstream.AuthenticationError
	if !errors.As(err, &refused) {
		return fmt.Errorf("the client should have refused the server: %w", err)
	}
	fmt.Printf("Refused: %v\n%v\n", refused.PolicyErrors, refused.Chain)
	fmt.Printf("The server says: %v\n", <-served)
	return nil
}

// serve authenticates one client and answers its message.
func serve(ctx context.Context, listener net.Listener, opts *sslstream.ServerOptions) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	s := sslstream.New(conn)
	defer s.Close()
	if err := s.AuthenticateAsServer(ctx, opts); err != nil {
		return err
	}
	message, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s, "you said %q", message)
	return err
}

// talk authenticates the server, shows what was negotiated, and exchanges a message with it.
func talk(ctx context.Context, address string, opts *sslstream.ClientOptions) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	s := sslstream.New(conn)
	defer s.Close()
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return err
	}
	display.Stream(s)
	if _, err := io.WriteString(s, "Hello from the client."); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	fmt.Printf("The server says: %s (orderly end: %v)\n", answer, s.ReceivedCloseNotify())
	return nil
}

func newAuthority(name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func issue(root *x509.Certificate, rootKey *ecdsa.PrivateKey, name string, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, key.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
