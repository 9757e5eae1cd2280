package sslstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/sslstream/sslstream"
)

func ExampleListener() {
	cert, roots := selfSigned("server.example")
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	listener := sslstream.NewListener(inner, &sslstream.ServerOptions{ServerCertificate: cert})
	listener.HandshakeTimeout = 5 * time.Second
	listener.OnError = func(conn net.Conn, err error) { log.Printf("%v: %v", conn.RemoteAddr(), err) }
	go func() {
		for {
			s, err := listener.AcceptStream(context.Background())
			if err != nil {
				return // net.ErrClosed after Close
			}
			go func() {
				defer s.Close()
				io.Copy(s, s)
			}()
		}
	}()

	s, err := sslstream.Dial(context.Background(), "tcp", listener.Addr().String(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(s, "hello")
	answer := make([]byte, 5)
	_, err = io.ReadFull(s, answer)
	fmt.Printf("%s %v\n", answer, err)
	s.Close()
	listener.Close()
	_, err = listener.Accept()
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output:
	// hello <nil>
	// true
}

func ExampleListener_http() {
	cert, roots := selfSigned("server.example")
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s for %s", r.Proto, r.TLS.ServerName)
	})}
	go server.Serve(sslstream.NewListener(inner, &sslstream.ServerOptions{ServerCertificate: cert}))

	// A Dialer is the client's side. It is for one host here; without a TargetHost it serves all.
	dialer := &sslstream.Dialer{Options: &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	}}
	client := &http.Client{Transport: &http.Transport{DialTLSContext: dialer.DialContext}}
	response, err := client.Get("https://" + inner.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	fmt.Printf("%s %v\n", text, err)
	fmt.Println(server.Shutdown(context.Background()))
	// Output:
	// HTTP/1.1 for server.example <nil>
	// <nil>
}

func ExampleDial() {
	cert, _ := selfSigned("server.example")
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	listener := sslstream.NewListener(inner, &sslstream.ServerOptions{ServerCertificate: cert})
	defer listener.Close()
	go listener.Accept()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// The host of the address, 127.0.0.1, is the target host, and the system's roots decide.
	s, err := sslstream.Dial(ctx, "tcp", listener.Addr().String(), nil)
	var refused *sslstream.AuthenticationError
	if errors.As(err, &refused) {
		fmt.Println(refused.TargetHost, refused.PolicyErrors)
		return
	}
	s.Close()
	// Output: 127.0.0.1 RemoteCertificateNameMismatch|RemoteCertificateChainErrors
}
