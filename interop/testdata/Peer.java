import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.cert.Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import javax.net.ssl.*;

/** A peer of Java's SSLSocket: echoes as a server, checks the echo as a client, and prints what it knows of each session. */
public class Peer {
    public static void main(String[] a) throws Exception {
        boolean client = a[0].equals("client"), mutual = a[6].equals("true");
        int port = Integer.parseInt(a[1]), size = Integer.parseInt(a[7]), sessions = Integer.parseInt(a[8]);
        SSLContext context = SSLContext.getInstance("TLS");
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        int n = 0;
        for (Certificate c : certificates(a[3])) trusted.setCertificateEntry("ca" + n++, c);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        KeyManager[] keys = null;
        if (!client || mutual) {
            KeyStore own = KeyStore.getInstance("PKCS12");
            own.load(null, null);
            String pem = Files.readString(Path.of(a[5])).replaceAll("-----[^-]*-----", "").replaceAll("\\s", "");
            PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
            own.setKeyEntry("own", key, new char[0], certificates(a[4]).toArray(new Certificate[0]));
            KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX");
            factory.init(own, new char[0]);
            keys = factory.getKeyManagers();
        }
        context.init(keys, trust.getTrustManagers(), null);
        byte[] pattern = new byte[size];
        for (int i = 0; i < size; i++) pattern[i] = (byte) (i * 31 + 7);
        SSLServerSocket listener = null;
        if (!client) {
            listener = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(port, 5, InetAddress.getByName("127.0.0.1"));
            listener.setNeedClientAuth(mutual);
            System.out.println("ready");
        }
        for (int round = 0; round < sessions; round++) {
            SSLSocket s = client ? (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", port) : (SSLSocket) listener.accept();
            SSLParameters p = s.getSSLParameters();
            p.setProtocols(new String[] {"TLSv" + a[2]});
            p.setApplicationProtocols(new String[] {"echo"});
            if (client) {
                p.setServerNames(List.of(new SNIHostName("server.example")));
                p.setEndpointIdentificationAlgorithm("HTTPS"); // of the address, since Java takes it from the socket
            }
            s.setSSLParameters(p);
            s.startHandshake();
            int echoed = 0;
            String end = "open";
            if (client) {
                Thread sender = new Thread(() -> {
                    try {
                        s.getOutputStream().write(pattern);
                    } catch (IOException e) {
                        e.printStackTrace();
                    }
                });
                sender.start();
                byte[] got = s.getInputStream().readNBytes(size);
                sender.join();
                if (!Arrays.equals(got, pattern)) throw new IOException("the echo is not what was sent");
                echoed = got.length;
                report(s, echoed, end);
                s.shutdownOutput();
                if (s.getInputStream().read() != -1) throw new IOException("more than an end");
            } else {
                byte[] buffer = new byte[65536];
                int got;
                end = "close_notify";
                try {
                    while ((got = s.getInputStream().read(buffer)) != -1) {
                        s.getOutputStream().write(buffer, 0, got);
                        echoed += got;
                    }
                } catch (SSLException e) {
                    end = "eof";
                }
                for (SNIServerName name : ((ExtendedSSLSession) s.getSession()).getRequestedServerNames()) System.out.println("sni=" + ((SNIHostName) name).getAsciiName());
                report(s, echoed, end);
            }
            s.close();
        }
    }

    static void report(SSLSocket s, int echoed, String end) throws Exception {
        String peer = "";
        try {
            String name = ((X509Certificate) s.getSession().getPeerCertificates()[0]).getSubjectX500Principal().getName();
            peer = name.replaceAll(".*CN=([^,]*).*", "$1");
        } catch (SSLPeerUnverifiedException e) {
            // none
        }
        System.out.println("session protocol=" + s.getSession().getProtocol() + " cipher=" + s.getSession().getCipherSuite() + " peer=" + peer
            + " alpn=" + s.getApplicationProtocol() + " echoed=" + echoed + " end=" + end);
    }

    static Collection<? extends Certificate> certificates(String file) throws Exception {
        try (InputStream in = new FileInputStream(file)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in);
        }
    }
}
