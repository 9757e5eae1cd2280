package sslstream_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"time"

	"github.com/sslstream/sslstream"
)

// selfSigned makes what the examples need: a certificate, and a trust store that has it.
func selfSigned(name string) (*tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// echo serves one client and closes conn.
func echo(conn net.Conn, opts *sslstream.ServerOptions) {
	s := sslstream.New(conn)
	defer s.Close()
	if s.AuthenticateAsServer(context.Background(), opts) == nil {
		io.Copy(s, s)
	}
}

func Example() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()

	go func() {
		s := sslstream.New(serverEnd)
		defer s.Close()
		if err := s.AuthenticateAsServer(context.Background(), &sslstream.ServerOptions{ServerCertificate: cert}); err != nil {
			log.Print(err)
			return
		}
		io.Copy(s, s)
	}()

	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(s, "hello")
	answer := make([]byte, 5)
	_, err = io.ReadFull(s, answer)
	fmt.Printf("%s %v %v\n", answer, err, s.Protocol())
	// Output: hello <nil> TLS13
}

func ExampleStream_AuthenticateAsClient() {
	cert, _ := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert})

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(ctx, &sslstream.ClientOptions{
		TargetHost:             "other.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: x509.NewCertPool()}, // trusts nobody
	})
	var refused *sslstream.AuthenticationError
	if errors.As(err, &refused) {
		fmt.Println(refused.PolicyErrors)
		fmt.Println(refused.Chain)
	}
	// Output:
	// RemoteCertificateNameMismatch|RemoteCertificateChainErrors
	// 0 CN=server.example
	//   UntrustedRoot (self-signed and not in the trust store)
}

func ExampleStream_AuthenticateAsServerFunc() {
	one, roots := selfSigned("one.example")
	two, _ := selfSigned("two.example")
	clientEnd, serverEnd := net.Pipe()
	go func() {
		s := sslstream.New(serverEnd)
		defer s.Close()
		s.AuthenticateAsServerFunc(context.Background(), func(_ context.Context, _ *sslstream.Stream, hello sslstream.ClientHelloInfo) (*sslstream.ServerOptions, error) {
			switch hello.ServerName {
			case "one.example":
				return &sslstream.ServerOptions{ServerCertificate: one}, nil
			case "two.example":
				return &sslstream.ServerOptions{ServerCertificate: two, ClientCertificateRequired: true}, nil
			}
			return nil, fmt.Errorf("no host %q here", hello.ServerName)
		})
	}()

	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "one.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	fmt.Println(err, s.RemoteCertificate().Subject)
	// Output: <nil> CN=one.example
}

func ExampleRemoteCertificateValidationCallback() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert})

	s := sslstream.New(clientEnd, sslstream.WithRemoteCertificateValidationCallback(
		func(_ context.Context, _ *sslstream.Stream, cert *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors) (sslstream.PolicyErrors, error) {
			fmt.Println("before:", errs)
			if cert.PublicKeyAlgorithm != x509.ECDSA {
				return errs, errors.New("not the kind of key we pin")
			}
			return errs &^ sslstream.RemoteCertificateNameMismatch, nil // forgives the name, and nothing else
		}))
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "alias.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	fmt.Println("after:", err)
	// Output:
	// before: RemoteCertificateNameMismatch
	// after: <nil>
}

func ExampleStream_Unwrap() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	ctx := context.Background()
	go func() {
		s := sslstream.New(serverEnd, sslstream.LeaveInnerOpen())
		if err := s.AuthenticateAsServer(ctx, &sslstream.ServerOptions{ServerCertificate: cert}); err != nil {
			log.Print(err)
			return
		}
		inner, err := s.Unwrap(ctx)
		if err != nil {
			log.Print(err)
			return
		}
		io.WriteString(inner, "plain text again")
		inner.Close()
	}()

	s := sslstream.New(clientEnd, sslstream.LeaveInnerOpen())
	err := s.AuthenticateAsClient(ctx, &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		log.Fatal(err)
	}
	inner, err := s.Unwrap(ctx)
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(inner)
	fmt.Printf("%s %v\n", text, err)
	// Output: plain text again <nil>
}

func ExampleSetSecurityProtocol() {
	if err := sslstream.SetSecurityProtocol(sslstream.ProtocolTLS13); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sslstream.SecurityProtocol())
	fmt.Println(sslstream.SetSecurityProtocol(sslstream.ProtocolSSL3))
	fmt.Println(sslstream.SetSecurityProtocol(sslstream.ProtocolSystemDefault))
	// Output:
	// TLS13
	// sslstream: the protocol SSL3 is not supported, only TLS10, TLS11, TLS12 and TLS13 are: unsupported operation
	// <nil>
}

func ExampleChainPolicy_Build() {
	cert, roots := selfSigned("server.example")
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		log.Fatal(err)
	}
	policy := &sslstream.ChainPolicy{CustomTrustStore: roots, VerificationTime: time.Now().AddDate(1, 0, 0)}
	chain, err := policy.Build(context.Background(), leaf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(chain.Status), chain.Has(sslstream.StatusNotTimeValid), chain.Has(sslstream.StatusUntrustedRoot))
	// Output: 1 true false
}

func ExampleRequirements() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert, EnabledProtocols: sslstream.ProtocolTLS12})

	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
		Require:                &sslstream.Requirements{PostQuantum: true, ForwardSecrecy: true},
	})
	var unmet *sslstream.RequirementError
	fmt.Println(errors.As(err, &unmet), unmet)
	// Output: true sslstream: the session does not meet what is required: PostQuantum
}

func ExampleStream_ChannelBinding() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	theirs := make(chan []byte, 1)
	go func() {
		s := sslstream.New(serverEnd)
		defer s.Close()
		if err := s.AuthenticateAsServer(context.Background(), &sslstream.ServerOptions{ServerCertificate: cert}); err != nil {
			log.Print(err)
		}
		data, err := s.ChannelBinding(sslstream.ChannelBindingExporter)
		if err != nil {
			log.Print(err)
		}
		theirs <- data
	}()

	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		log.Fatal(err)
	}
	ours, err := s.ChannelBinding(sslstream.ChannelBindingExporter) // for SCRAM-SHA-256-PLUS: "p=tls-exporter,,"
	fmt.Println(len(ours), err, bytes.Equal(ours, <-theirs))
	_, err = s.ChannelBinding(sslstream.ChannelBindingUnique)
	fmt.Println(err)
	// Output:
	// 32 <nil> true
	// sslstream: the session has no tls-unique channel binding: TLS 1.3 does not define it; use ChannelBindingExporter: unsupported operation
}

func ExampleWithTrace() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert})

	ctx := sslstream.WithTrace(context.Background(), &sslstream.Trace{
		HandshakeStart: func(server bool, targetHost string) { fmt.Println("start:", server, targetHost) },
		Validated: func(cert *x509.Certificate, _ *sslstream.Chain, errs sslstream.PolicyErrors, _ time.Duration) {
			fmt.Println("validated:", cert.Subject, errs)
		},
		HandshakeDone: func(s sslstream.Security, _ time.Duration, err error) { fmt.Println("done:", s.Protocol, err) },
	})
	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(ctx, &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// start: false server.example
	// validated: CN=server.example None
	// done: TLS13 <nil>
}

func ExampleStats() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert})

	before := sslstream.Stats() // counters of the process: what counts is the difference
	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "other.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
	})
	after := sslstream.Stats()
	fmt.Println(err != nil, after.FailedHandshakes > before.FailedHandshakes)
	// Output: true true
}

func ExampleSecurity() {
	cert, roots := selfSigned("server.example")
	clientEnd, serverEnd := net.Pipe()
	go echo(serverEnd, &sslstream.ServerOptions{ServerCertificate: cert})

	s := sslstream.New(clientEnd)
	defer s.Close()
	err := s.AuthenticateAsClient(context.Background(), &sslstream.ClientOptions{
		TargetHost:             "server.example",
		CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: roots},
		TLSConfig:              &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}},
		CipherSuites:           []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		EnabledProtocols:       sslstream.ProtocolTLS12,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Security())
	text, err := json.MarshalIndent(s.Security(), "", "  ")
	fmt.Printf("%s %v\n", text, err)
	// Output:
	// Cipher: Aes128 strength 128
	// Hash: Sha256 strength 256
	// Key exchange: ECDHE strength 256
	// Protocol: TLS12
	// {
	//   "protocol": "TLS12",
	//   "cipherSuite": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	//   "cipherAlgorithm": "Aes128",
	//   "cipherStrength": 128,
	//   "hashAlgorithm": "Sha256",
	//   "hashStrength": 256,
	//   "keyExchangeAlgorithm": "ECDHE",
	//   "keyExchangeStrength": 256,
	//   "group": "CurveP256",
	//   "applicationProtocol": "",
	//   "mutuallyAuthenticated": false,
	//   "resumed": false,
	//   "echAccepted": false
	// } <nil>
}
