using System;
using System.IO;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;

// The client of the classic pair: it authenticates the server, sends a message that ends in "<EOF>", and reads one.
public sealed class SslTcpClient
{
	static X509Certificate2 own;

	static bool ValidateServerCertificate(object sender, X509Certificate certificate, X509Chain chain, SslPolicyErrors sslPolicyErrors)
	{
		Console.WriteLine($"Certificate error: {sslPolicyErrors}");
		// The root is in no store of this machine's.
		return sslPolicyErrors == SslPolicyErrors.RemoteCertificateChainErrors && certificate.Subject.Contains("CN=server.example");
	}

	static X509Certificate SelectLocalCertificate(object sender, string targetHost, X509CertificateCollection localCertificates, X509Certificate remoteCertificate, string[] acceptableIssuers)
	{
		Console.WriteLine($"Client is selecting a local certificate for {targetHost}.");
		return own;
	}

	static string ReadMessage(SslStream sslStream)
	{
		var buffer = new byte[2048];
		var messageData = new StringBuilder();
		for (int bytes; (bytes = sslStream.Read(buffer, 0, buffer.Length)) != 0;) {
			messageData.Append(Encoding.UTF8.GetString(buffer, 0, bytes));
			if (messageData.ToString().IndexOf("<EOF>") != -1) break;
		}
		return messageData.ToString();
	}

	public static int Main(string[] args)
	{
		if (args.Length > 2) own = new X509Certificate2(args[2], "password");
		var client = new TcpClient("127.0.0.1", int.Parse(args[0]));
		Console.WriteLine("Client connected.");
		var sslStream = own == null
			? new SslStream(client.GetStream(), false, ValidateServerCertificate)
			: new SslStream(client.GetStream(), false, ValidateServerCertificate, SelectLocalCertificate);
		try {
			sslStream.AuthenticateAsClient(args[1], null, SslProtocols.Tls12, false);
		} catch (AuthenticationException e) {
			Console.WriteLine("Exception: {0}", e.Message);
			client.Close();
			return 1;
		}
		Console.WriteLine($"Protocol: {sslStream.SslProtocol}, authenticated {sslStream.IsAuthenticated}, as server {sslStream.IsServer}, mutually {sslStream.IsMutuallyAuthenticated}");
		sslStream.Write(Encoding.UTF8.GetBytes("Hello from the client.<EOF>"));
		sslStream.Flush();
		Console.WriteLine("Server says: {0}", ReadMessage(sslStream));
		client.Close();
		Console.WriteLine("Client closed.");
		return 0;
	}
}
