package interop_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"

	"github.com/sslstream/sslstream"
	"github.com/sslstream/sslstream/internal/testpki"
)

// stapleFor is what openssl ocsp says about a certificate.
func (o *opensslCA) stapleFor(c *x509.Certificate) []byte {
	request, err := ocsp.CreateRequest(c, o.ca.Certificate, nil)
	require.NoError(o.t, err)
	response, err := o.respond(request)
	require.NoError(o.t, err)
	return response
}

// TestStaplingByNginx has nginx staple responses of OpenSSL's to certificates that must be stapled.
func TestStaplingByNginx(t *testing.T) {
	nginx := need(t, "nginx", "apt-get install nginx-light")
	o := newOpenSSLCA(t)
	cert := o.issue(testpki.MustStaple())
	certFile, keyFile := testpki.Files(t, cert)
	good := filepath.Join(t.TempDir(), "good.der")
	stale := filepath.Join(t.TempDir(), "stale.der")
	require.NoError(t, os.WriteFile(good, o.stapleFor(cert.Leaf), 0o600))
	past := o.ca.Serve(t)
	past.OCSP = func(r *testpki.Response) {
		r.Singles[0].ThisUpdate, r.Singles[0].NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	}
	require.NoError(t, os.WriteFile(stale, past.Staple(cert.Leaf), 0o600))
	for name, staple := range map[string]string{"good": good, "stale": stale, "none": ""} {
		for _, v := range versions {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				port, dir := freePort(t), t.TempDir()
				stapling := "ssl_stapling off;"
				if staple != "" {
					stapling = "ssl_stapling on; ssl_stapling_file " + staple + ";"
				}
				config := filepath.Join(dir, "nginx.conf")
				require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen 127.0.0.1:%[2]s ssl;
    ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_protocols TLSv1.2 TLSv1.3;
    %[5]s
    location / { return 200 "stapled\n"; }
  }
}`, dir, port, certFile, keyFile, stapling)), 0o600))
				start(t, nginx, "-p", dir, "-c", config)
				client := sslstream.New(dial(t, port))
				err := client.AuthenticateAsClient(testContext(t), &sslstream.ClientOptions{
					TargetHost: serverName, EnabledProtocols: v.protocol,
					CertificateChainPolicy: &sslstream.ChainPolicy{CustomTrustStore: testpki.Pool(o.ca), RevocationMode: sslstream.RevocationOffline},
				})
				defer client.Close()
				if name != "good" {
					require.ErrorContains(t, err, "must be stapled")
					return
				}
				require.NoError(t, err, "the staple alone says that the certificate is good")
				_, err = client.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
				require.NoError(t, err)
				assert.Contains(t, readLine(t, client), "200")
			})
		}
	}
}

// staplingServer is a server of ours whose context gets its staples from openssl ocsp; it has one by now.
func staplingServer(t *testing.T) (o *opensslCA, so *sslstream.ServerOptions, caFile string) {
	o = newOpenSSLCA(t)
	cert := o.issue()
	c, err := sslstream.NewCertificateContext(cert, &sslstream.CertificateContextOptions{AdditionalCertificates: []*x509.Certificate{o.ca.Certificate}})
	require.NoError(t, err)
	return o, &sslstream.ServerOptions{ServerCertificateContext: c}, testpki.CAFile(t, o.ca)
}

// TestStaplingWithClients has openssl s_client and gnutls-cli look at what we staple.
func TestStaplingWithClients(t *testing.T) {
	gnutls := need(t, "gnutls-cli", "apt-get install gnutls-bin")
	o, so, caFile := staplingServer(t)
	for _, v := range versions {
		so := so.Clone()
		so.EnabledProtocols = v.protocol
		for name, look := range map[string]struct {
			program string
			args    func(port string) []string
			want    []string
		}{
			"openssl": {o.openssl, func(port string) []string {
				return []string{"s_client", "-connect", "127.0.0.1:" + port, "-servername", serverName, "-status", "-CAfile", caFile, "-verify_return_error"}
			}, []string{"OCSP Response Status: successful", "Cert Status: good"}},
			"gnutls": {gnutls, func(port string) []string {
				return []string{"--x509cafile", caFile, "--sni-hostname", serverName, "--verify-hostname", serverName, "-p", port, "127.0.0.1"}
			}, []string{"OCSP status request,\n", "- Status: The certificate is trusted"}},
		} {
			t.Run(name+"/"+v.name, func(t *testing.T) {
				deadline := time.Now().Add(patience)
				for {
					port, conn := accept(t)
					p := start(t, look.program, look.args(port)...)
					server := sslstream.New(conn())
					require.NoError(t, server.AuthenticateAsServer(testContext(t), so))
					_, err := server.Write([]byte("Hello.\n"))
					require.NoError(t, err)
					p.shows("Hello.")
					require.NoError(t, server.Close())
					missing := ""
					for _, w := range look.want {
						if !strings.Contains(p.output(), w) {
							missing = w
						}
					}
					if missing == "" {
						return
					}
					require.True(t, time.Now().Before(deadline), "%s never prints %q", look.program, missing)
					time.Sleep(50 * time.Millisecond) // the first handshakes may have no staple
				}
			})
		}
	}
}
