// Https is a web server that shows its callers what they negotiated: as a page, and as JSON at /security.json or where
// that is what they accept. It speaks HTTP/1.1 and HTTP/2 over sslstream's streams, and ends in an orderly way on Ctrl-C.
//
//	go run . [-address 127.0.0.1:8443] [-cert cert.pem -key key.pem]
//	curl --insecure --http2 https://127.0.0.1:8443/security.json
//
// Without a certificate it makes one in memory, for localhost, which no browser trusts.
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
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/sslstream/sslstream"
)

func main() {
	log.SetFlags(0)
	address := flag.String("address", "127.0.0.1:8443", "where to listen")
	certFile := flag.String("cert", "", "the certificate and its intermediates, PEM; none: one is made in memory")
	keyFile := flag.String("key", "", "its private key, PEM")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	if err := run(ctx, *address, *certFile, *keyFile); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, certFile, keyFile string) error {
	cert, err := certificate(certFile, keyFile)
	if err != nil {
		return err
	}
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Printf("Serving https://%v\n", inner.Addr())
	return serve(ctx, inner, cert, handler())
}

// certificate is the one in the files, or a new one.
func certificate(certFile, keyFile string) (*tls.Certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return selfSigned()
	case certFile == "" || keyFile == "":
		return nil, errors.New("https: -cert and -key go together")
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	return &cert, err
}

func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(0, 0, 30),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// options are the server's: the application protocols decide who serves a stream.
func options(cert *tls.Certificate) *sslstream.ServerOptions {
	return &sslstream.ServerOptions{
		ServerCertificate:    cert,
		ApplicationProtocols: []string{"h2", "http/1.1"},
	}
}
