package interop_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sslstream/sslstream"
)

// proxy is a server that speaks TLS in front of others, or to them. It serves a line of what it knows of the session as the
// body of its answer: protocol, suite, the client's name, and whether the session was resumed.
type proxy struct {
	name, program, install string
	server                 func(p *pki, dir, port string, v sslstream.Protocols, mutual bool) (config string)
	client                 func(p *pki, dir, port, to string, v sslstream.Protocols, mutual bool) (config string) // plain HTTP on port
	args                   func(dir, config string) []string
	reused                 string
}

func when(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

func tlsv(v sslstream.Protocols) string {
	return map[sslstream.Protocols]string{sslstream.ProtocolTLS12: "TLSv1.2", sslstream.ProtocolTLS13: "TLSv1.3"}[v]
}

// nginxConfig is what all of nginx's configurations begin with.
func nginxConfig(dir, server string) string {
	return fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { %[2]s }
}
`, dir, server)
}

// combined is a certificate and its key in one file.
func combined(dir, cert, key string) string {
	file := filepath.Join(dir, filepath.Base(filepath.Dir(cert))+"combined.pem")
	c, _ := os.ReadFile(cert)
	k, _ := os.ReadFile(key)
	os.WriteFile(file, append(c, k...), 0o600)
	return file
}

var proxies = []proxy{
	{
		"nginx", "nginx", "apt-get install nginx-light",
		func(p *pki, dir, port string, v sslstream.Protocols, mutual bool) string {
			return nginxConfig(dir, fmt.Sprintf(`listen 127.0.0.1:%s ssl; ssl_protocols %s; ssl_certificate %s; ssl_certificate_key %s; %s
    location / { return 200 "$ssl_protocol $ssl_cipher '$ssl_client_s_dn' $ssl_session_reused"; }`,
				port, tlsv(v), p.serverFile, p.serverKey, when(mutual, "ssl_verify_client on; ssl_verify_depth 3; ssl_client_certificate "+p.caFile+";")))
		},
		func(p *pki, dir, port, to string, v sslstream.Protocols, mutual bool) string {
			return nginxConfig(dir, fmt.Sprintf(`listen 127.0.0.1:%s;
    location / {
      proxy_pass https://127.0.0.1:%s; proxy_ssl_protocols %s; proxy_ssl_name %s; proxy_ssl_server_name on;
      proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_trusted_certificate %s; %s
    }`, port, to, tlsv(v), serverName, p.caFile, when(mutual, "proxy_ssl_certificate "+p.clientFile+"; proxy_ssl_certificate_key "+p.clientKey+";")))
		},
		func(dir, config string) []string { return []string{"-p", dir, "-c", config} }, "r",
	},
	{
		"HAProxy", "haproxy", "apt-get install haproxy",
		func(p *pki, dir, port string, v sslstream.Protocols, mutual bool) string {
			return haproxyConfig + fmt.Sprintf(`frontend f
  bind 127.0.0.1:%s ssl crt %s ssl-min-ver %s ssl-max-ver %s %s
  http-request return status 200 content-type text/plain lf-string "%%[ssl_fc_protocol] %%[ssl_fc_cipher] '%%[ssl_c_s_dn]' %%[ssl_fc_is_resumed]"
`, port, combined(dir, p.serverFile, p.serverKey), tlsv(v), tlsv(v), when(mutual, "verify required ca-file "+p.caFile))
		},
		func(p *pki, dir, port, to string, v sslstream.Protocols, mutual bool) string {
			return haproxyConfig + fmt.Sprintf(`frontend f
  bind 127.0.0.1:%s
  default_backend b
backend b
  server s 127.0.0.1:%s ssl ssl-min-ver %s ssl-max-ver %s verify required ca-file %s verifyhost %s sni str(%s) %s
`, port, to, tlsv(v), tlsv(v), p.caFile, serverName, serverName, when(mutual, "crt "+combined(dir, p.clientFile, p.clientKey)))
		},
		func(_, config string) []string { return []string{"-db", "-f", config} }, "1",
	},
}

const haproxyConfig = `global
  ssl-default-server-options ssl-min-ver TLSv1.2
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
`

func (x *proxy) start(t *testing.T, dir, config string) {
	file := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	start(t, need(t, x.program, x.install), x.args(dir, file)...)
}

// TestProxiesAsServers has the proxies be our client's server.
func TestProxiesAsServers(t *testing.T) {
	for _, x := range proxies {
		t.Run(x.name, func(t *testing.T) {
			need(t, x.program, x.install)
			p := newPKI(t)
			eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
				port, dir := freePort(t), t.TempDir()
				x.start(t, dir, x.server(p, dir, port, v, mutual))
				opts := p.clientOptions(v, mutual)
				for round := range 2 {
					s := sslstream.New(dial(t, port))
					require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
					s.SetReadTimeout(patience)
					_, err := io.WriteString(s, "GET / HTTP/1.1\r\nHost: "+serverName+"\r\nConnection: close\r\n\r\n")
					require.NoError(t, err)
					answer, err := io.ReadAll(s)
					require.NoError(t, err)
					assert.True(t, s.ReceivedCloseNotify())
					_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
					words := strings.Fields(body)
					require.NotEmpty(t, words, "%s", answer)
					assert.Equal(t, tlsv(s.Protocol()), words[0])
					assert.Equal(t, v, s.Protocol())
					assert.Equal(t, opensslName(s.NegotiatedCipherSuite()), words[1])
					assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
					if mutual {
						assert.Contains(t, body, "CN=client.example")
					}
					assert.Equal(t, round == 1, s.ConnectionState().DidResume)
					assert.Equal(t, round == 1, words[len(words)-1] == x.reused)
					require.NoError(t, s.Close())
				}
			})
		})
	}
}

// TestProxiesAsClients has the proxies speak TLS to our Listener, for who asks them in plain text.
func TestProxiesAsClients(t *testing.T) {
	for _, x := range proxies {
		t.Run(x.name, func(t *testing.T) {
			need(t, x.program, x.install)
			p := newPKI(t)
			eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
				inner, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				type key struct{}
				server := &http.Server{
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						s := r.Context().Value(key{}).(*sslstream.Stream)
						checkServer(t, s, v, mutual)
						body, err := io.ReadAll(r.Body)
						assert.NoError(t, err)
						w.Header().Set("Connection", "close") // so that the next request comes by another session
						w.Header().Set("Resumed", fmt.Sprint(s.ConnectionState().DidResume))
						w.Write(body)
					}),
					ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
				}
				go server.Serve(sslstream.NewListener(inner, p.serverOptions(v, mutual)))
				defer server.Close()
				_, to, err := net.SplitHostPort(inner.Addr().String())
				require.NoError(t, err)

				port, dir := freePort(t), t.TempDir()
				x.start(t, dir, x.client(p, dir, port, to, v, mutual))
				dial(t, port)
				for round := range 2 {
					answer, err := http.Post("http://127.0.0.1:"+port+"/", "text/plain", strings.NewReader(text))
					require.NoError(t, err)
					body, err := io.ReadAll(answer.Body)
					require.NoError(t, err)
					answer.Body.Close()
					require.Equal(t, http.StatusOK, answer.StatusCode, "%s", body)
					assert.Equal(t, text, string(body))
					assert.Equal(t, fmt.Sprint(round == 1), answer.Header.Get("Resumed"))
				}
				http.DefaultClient.CloseIdleConnections()
			})
		})
	}
}

// TestStunnel has stunnel on one side, and plain text on its other.
func TestStunnel(t *testing.T) {
	const install = "apt-get install stunnel4"
	stunnel := need(t, "stunnel", install)
	p := newPKI(t)
	run := func(t *testing.T, lines ...string) {
		file := filepath.Join(t.TempDir(), "stunnel.conf")
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(append([]string{"foreground = yes", "pid =", "[service]"}, lines...), "\n")+"\n"), 0o600))
		start(t, stunnel, file)
	}
	// echo is a plain server's end of a connection.
	echo := func(c net.Conn) {
		io.Copy(c, c)
		c.(*net.TCPConn).CloseWrite()
	}
	eachWay(t, func(t *testing.T, v sslstream.Protocols, mutual bool) {
		verify := []string{"sslVersion = " + tlsv(v), "CAfile = " + p.caFile, "verifyChain = yes"}
		t.Run("server", func(t *testing.T) {
			port := freePort(t)
			to, conn := accept(t)
			lines := []string{"accept = 127.0.0.1:" + port, "connect = 127.0.0.1:" + to, "cert = " + p.serverFile, "key = " + p.serverKey, verify[0]}
			if mutual {
				lines = append(lines, verify[1], verify[2], "requireCert = yes")
			}
			run(t, lines...)
			opts := p.clientOptions(v, mutual)
			for round := range 2 {
				s := sslstream.New(dial(t, port))
				require.NoError(t, s.AuthenticateAsClient(testContext(t), opts))
				go echo(conn())
				assert.Equal(t, v, s.Protocol())
				assert.Equal(t, mutual, s.IsMutuallyAuthenticated())
				assert.Equal(t, round == 1, s.ConnectionState().DidResume)
				s.SetReadTimeout(patience)
				go func() {
					io.WriteString(s, text)
					s.CloseWrite()
				}()
				got, err := io.ReadAll(s)
				require.NoError(t, err)
				assert.Equal(t, text, string(got))
				assert.True(t, s.ReceivedCloseNotify())
				require.NoError(t, s.Close())
			}
		})
		t.Run("client", func(t *testing.T) {
			port := freePort(t)
			to, conn := accept(t)
			lines := append([]string{"client = yes", "accept = 127.0.0.1:" + port, "connect = 127.0.0.1:" + to, "checkHost = " + serverName, "sni = " + serverName}, verify...)
			if mutual {
				lines = append(lines, "cert = "+p.clientFile, "key = "+p.clientKey)
			}
			run(t, lines...)
			opts := p.serverOptions(v, mutual)
			for round := range 2 {
				plain := dial(t, port)
				s := sslstream.New(conn())
				require.NoError(t, s.AuthenticateAsServer(testContext(t), opts))
				checkServer(t, s, v, mutual)
				assert.Equal(t, round == 1, s.ConnectionState().DidResume)
				s.SetReadTimeout(patience)
				go func() {
					io.WriteString(plain, text)
					plain.(*net.TCPConn).CloseWrite()
				}()
				_, err := io.Copy(s, struct{ io.Reader }{s})
				require.NoError(t, err)
				assert.True(t, s.ReceivedCloseNotify(), "stunnel's end is orderly")
				require.NoError(t, s.Close())
				got, err := io.ReadAll(plain)
				require.NoError(t, err)
				assert.Equal(t, text, string(got))
			}
		})
	})
}
