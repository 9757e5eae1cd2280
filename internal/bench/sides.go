package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream"
)

// conn is what both sides have.
type conn interface {
	io.ReadWriteCloser
	ConnectionState() tls.ConnectionState
}

const host = "server.example"

type pki struct {
	roots          *x509.CertPool
	server, client tls.Certificate
	responses      responses
}

// responses is an OCSP responder in memory: what it answers, by the host that is asked.
type responses map[string][]byte

func (r responses) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(r[request.URL.Host])), ContentLength: -1,
	}, nil
}

// newPKI makes a root, an intermediate and two certificates, as the public web has them.
func newPKI() (*pki, error) {
	p := &pki{roots: x509.NewCertPool(), responses: responses{}}
	serial := int64(0)
	issue := func(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			OCSPServer: []string{"http://" + strings.ToLower(name)},
		}
		if name == host || name == "client.example" {
			template.DNSNames = []string{name}
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		} else {
			template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			return nil, nil, err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, err
		}
		if parent == template {
			return c, key, nil
		}
		good := ocsp.Response{SerialNumber: c.SerialNumber, ThisUpdate: c.NotBefore, NextUpdate: c.NotAfter}
		p.responses[strings.ToLower(name)], err = ocsp.CreateResponse(parent, parent, good, parentKey)
		return c, key, err
	}
	root, rootKey, err := issue("Root", nil, nil)
	if err != nil {
		return nil, err
	}
	ca, caKey, err := issue("CA", root, rootKey)
	if err != nil {
		return nil, err
	}
	p.roots.AddCert(root)
	for name, cert := range map[string]*tls.Certificate{host: &p.server, "client.example": &p.client} {
		c, key, err := issue(name, ca, caKey)
		if err != nil {
			return nil, err
		}
		*cert = tls.Certificate{Certificate: [][]byte{c.Raw, ca.Raw}, PrivateKey: key, Leaf: c}
	}
	return p, nil
}

// loopback makes the two ends of a TCP connection.
type loopback struct{ listener net.Listener }

func newLoopback() *loopback {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return &loopback{l}
}

func (l *loopback) pair() (client, server net.Conn, err error) {
	accepted := make(chan error, 1)
	go func() {
		var err error
		server, err = l.listener.Accept()
		accepted <- err
	}()
	client, err = net.Dial("tcp", l.listener.Addr().String())
	return client, server, errors.Join(err, <-accepted)
}

// rawSide is crypto/tls alone.
type rawSide struct {
	*loopback
	client, server, mutualClient, mutualServer *tls.Config
}

func newRawSide(p *pki) *rawSide {
	s := &rawSide{loopback: newLoopback()}
	s.client = &tls.Config{ServerName: host, RootCAs: p.roots, DynamicRecordSizingDisabled: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	s.server = &tls.Config{Certificates: []tls.Certificate{p.server}, DynamicRecordSizingDisabled: true}
	s.mutualClient = s.client.Clone()
	s.mutualClient.Certificates = []tls.Certificate{p.client}
	s.mutualClient.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	s.mutualServer = s.server.Clone()
	s.mutualServer.ClientAuth, s.mutualServer.ClientCAs = tls.RequireAndVerifyClientCert, p.roots
	return s
}

func (s *rawSide) name() string { return "crypto/tls" }

func (s *rawSide) pair(mutual, resumable bool) (client, server conn, err error) {
	a, b, err := s.loopback.pair()
	if err != nil {
		return nil, nil, err
	}
	cc, sc := s.client, s.server
	if mutual {
		cc, sc = s.mutualClient, s.mutualServer
	}
	if !resumable {
		cc = cc.Clone()
		cc.ClientSessionCache = nil
	}
	c, v := tls.Client(a, cc), tls.Server(b, sc)
	done := make(chan error, 1)
	go func() { done <- v.Handshake() }()
	err = c.Handshake()
	return c, v, errors.Join(err, <-done)
}

// streamSide is this library.
type streamSide struct {
	*loopback
	label                                    string
	client, mutualClient, fresh, mutualFresh *sslstreamOptions
}

type sslstreamOptions struct {
	client *sslstream.ClientOptions
	server *sslstream.ServerOptions
}

func newStreamSide(p *pki) *streamSide {
	return streamSideWith("sslstream", p, &sslstream.ChainPolicy{CustomTrustStore: p.roots})
}

// newCheckingSide checks revocation, by responses that it remembers after the first handshake, or that are stapled.
func newCheckingSide(p *pki, staple bool) *streamSide {
	name := "remembered"
	if staple {
		name = "stapled"
		stapled := *p
		stapled.server.OCSPStaple = p.responses[host]
		p = &stapled
	}
	return streamSideWith(name, p, &sslstream.ChainPolicy{
		CustomTrustStore: p.roots, RevocationMode: sslstream.RevocationOnline, HTTPClient: &http.Client{Transport: p.responses},
	})
}

func streamSideWith(name string, p *pki, trust *sslstream.ChainPolicy) *streamSide {
	client := &sslstream.ClientOptions{TargetHost: host, CertificateChainPolicy: trust}
	mutualClient := client.Clone()
	mutualClient.ClientCertificates = []tls.Certificate{p.client}
	fresh, mutualFresh := client.Clone(), mutualClient.Clone()
	fresh.DisableTLSResume, mutualFresh.DisableTLSResume = true, true
	server := &sslstream.ServerOptions{ServerCertificate: &p.server, CertificateChainPolicy: trust}
	mutualServer := server.Clone()
	mutualServer.ClientCertificateRequired = true
	return &streamSide{
		label:    name,
		loopback: newLoopback(),
		client:   &sslstreamOptions{client, server}, mutualClient: &sslstreamOptions{mutualClient, mutualServer},
		fresh: &sslstreamOptions{fresh, server}, mutualFresh: &sslstreamOptions{mutualFresh, mutualServer},
	}
}

func (s *streamSide) name() string { return s.label }

func (s *streamSide) pair(mutual, resumable bool) (client, server conn, err error) {
	a, b, err := s.loopback.pair()
	if err != nil {
		return nil, nil, err
	}
	o := s.fresh
	switch {
	case mutual && resumable:
		o = s.mutualClient
	case mutual:
		o = s.mutualFresh
	case resumable:
		o = s.client
	}
	c, v := sslstream.New(a), sslstream.New(b)
	done := make(chan error, 1)
	go func() { done <- v.AuthenticateAsServer(context.Background(), o.server) }()
	err = c.AuthenticateAsClient(context.Background(), o.client)
	return c, v, errors.Join(err, <-done)
}
