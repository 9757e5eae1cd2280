package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

const host = "server.example"

// errTest is what a failed requirement of the test packages panics with here.
var errTest = errors.New("a requirement failed")

// tester lets packages for tests be used outside of one.
type tester struct{ testing.TB }

func (tester) Helper()               {}
func (tester) Errorf(string, ...any) {}
func (tester) FailNow()              { panic(errTest) }
func (tester) Cleanup(func())        {}
func (tester) Name() string          { return "soak" }

// pki is what the sides show and trust.
type pki struct {
	root   *testpki.Authority
	server tls.Certificate
	client tls.Certificate
}

func newPKI() *pki {
	p := &pki{root: testpki.Root(tester{}, "Soak Root", testpki.Valid(-time.Hour, 7*24*time.Hour))}
	p.server = p.root.Issue(tester{}, host, testpki.Valid(-time.Hour, 7*24*time.Hour))
	p.client = p.root.Issue(tester{}, "client.example", testpki.Valid(-time.Hour, 7*24*time.Hour))
	return p
}

func (p *pki) trust() *sslstream.ChainPolicy {
	return &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(p.root)}
}

func (p *pki) serverOptions() *sslstream.ServerOptions {
	return &sslstream.ServerOptions{ServerCertificate: &p.server}
}

func (p *pki) clientOptions(protocols sslstream.Protocols) *sslstream.ClientOptions {
	return &sslstream.ClientOptions{TargetHost: host, CertificateChainPolicy: p.trust(), EnabledProtocols: protocols}
}

// raw is an attacker's config as a client.
func (p *pki) raw() *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: testpki.Pool(p.root)}
}

// rawServer is an attacker's config as a server, with a certificate that its victims trust.
func (p *pki) rawServer() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{p.server}} }

// hello is a ClientHello.
func (p *pki) hello() []byte {
	var hello bytes.Buffer
	tls.Client(onlyWrites{&hello}, p.raw()).Handshake()
	return hello.Bytes()
}

type onlyWrites struct{ *bytes.Buffer }

func (onlyWrites) Read([]byte) (int, error)         { return 0, errTest }
func (onlyWrites) Close() error                     { return nil }
func (onlyWrites) LocalAddr() net.Addr              { return nil }
func (onlyWrites) RemoteAddr() net.Addr             { return nil }
func (onlyWrites) SetDeadline(time.Time) error      { return nil }
func (onlyWrites) SetReadDeadline(time.Time) error  { return nil }
func (onlyWrites) SetWriteDeadline(time.Time) error { return nil }
