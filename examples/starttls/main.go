// Starttls shows a connection that begins in plain text, is upgraded to TLS, and goes back to plain text, as mail and FTP
// servers do it. The inner stream is left open and exactly behind the TLS session, so that not a byte is lost: here the plain
// text comes right behind the end of TLS. It prints what was negotiated, and needs no arguments.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"strings"
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
	cert, roots, err := newCertificate("mail.example")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			err = serve(ctx, conn, &sslstream.ServerOptions{ServerCertificate: cert})
		}
		served <- err
	}()

	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	err = talk(ctx, conn, &sslstream.ClientOptions{
		TargetHost:             "mail.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		return err
	}
	return <-served
}

// line reads one line without reading past it: a buffered reader would take bytes that belong to TLS.
func line(r io.Reader) (string, error) {
	var text []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return strings.TrimSuffix(string(text), "\r"), nil
		}
		text = append(text, b[0])
	}
}

func say(w io.Writer, text string) error {
	_, err := io.WriteString(w, text+"\r\n")
	return err
}

func serve(ctx context.Context, conn net.Conn, opts *sslstream.ServerOptions) error {
	if err := say(conn, "220 mail.example"); err != nil {
		return err
	}
	command, err := line(conn)
	if err != nil {
		return err
	}
	if command != "STARTTLS" {
		return fmt.Errorf("starttls: the client said %q instead of STARTTLS", command)
	}
	if err := say(conn, "220 go ahead"); err != nil {
		return err
	}
	s := sslstream.New(conn, sslstream.LeaveInnerOpen())
	if err := s.AuthenticateAsServer(ctx, opts); err != nil {
		return err
	}
	for lines := bufio.NewScanner(s); lines.Scan(); {
		if err := say(s, "250 heard in secret: "+lines.Text()); err != nil {
			return err
		}
	}
	// The client has ended TLS; answer, and go on in plain text.
	if _, err := s.Unwrap(ctx); err != nil {
		return err
	}
	goodbye, err := line(conn)
	if err != nil {
		return err
	}
	return say(conn, "221 heard in plain text: "+goodbye)
}

func talk(ctx context.Context, conn net.Conn, opts *sslstream.ClientOptions) error {
	show := func(r io.Reader) error {
		text, err := line(r)
		fmt.Println("S:", text)
		return err
	}
	if err := show(conn); err != nil {
		return err
	}
	fmt.Println("C: STARTTLS")
	if err := say(conn, "STARTTLS"); err != nil {
		return err
	}
	if err := show(conn); err != nil {
		return err
	}

	s := sslstream.New(conn, sslstream.LeaveInnerOpen())
	if err := s.AuthenticateAsClient(ctx, opts); err != nil {
		return err
	}
	fmt.Println("(TLS from here on)")
	display.Stream(s)
	if err := say(s, "the password is swordfish"); err != nil {
		return err
	}
	if err := show(s); err != nil {
		return err
	}
	inner, err := s.Unwrap(ctx)
	if err != nil {
		return err
	}
	fmt.Println("(plain text again)")
	fmt.Println("C: goodbye")
	if err := say(inner, "goodbye"); err != nil {
		return err
	}
	return show(inner)
}

func newCertificate(name string) (*tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}
