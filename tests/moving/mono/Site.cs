// One web server of a site whose token is a column of its configuration table. At each use it asks WeChat whether the
// token has ended, and fetches another only then, or where there is none.
using System;
using System.Data;
using System.Data.Odbc;
using System.Net;
using System.Threading;

public static class Site
{
    const string User = "admin";

    static string Setting(string name)
    {
        return Environment.GetEnvironmentVariable(name) ?? throw new InvalidOperationException("no " + name);
    }

    static string Ask(string path)
    {
        using (var client = new WebClient())
        {
            client.Headers[HttpRequestHeader.UserAgent] = Setting("AGENT") + "/1";
            return client.DownloadString(Setting("WECHAT") + path);
        }
    }

    // What such classes do in place of reading JSON.
    static string Field(string json, string name)
    {
        int at = json.IndexOf("\"" + name + "\":", StringComparison.Ordinal);
        if (at < 0) return "";
        int begin = at + name.Length + 3;
        return json.Substring(begin, json.IndexOfAny(new[] { ',', '}' }, begin) - begin).Trim(' ', '"');
    }

    static string Errcode(string token)
    {
        string errcode = Field(Ask("/cgi-bin/menu/get?access_token=" + token), "errcode");
        return errcode == "" ? "0" : errcode;
    }

    static DataRow Row(OdbcConnection database)
    {
        using (var adapter = new OdbcDataAdapter("select * from SWX_Config where UserName='" + User + "'", database))
        {
            var table = new DataTable();
            adapter.Fill(table);
            return table.Rows[0];
        }
    }

    static string Token(OdbcConnection database)
    {
        DataRow row = Row(database);
        string token = row["access_token"].ToString();
        if (token != "" && Errcode(token) != "42001") return token;
        string path = "/cgi-bin/token?grant_type=client_credential&appid=" + row["AppID"] + "&secret=" + row["AppSecret"];
        token = Field(Ask(path), "access_token");
        string update = "update SWX_Config set access_token='" + token + "' where UserName='" + User + "'";
        using (var command = new OdbcCommand(update, database))
        {
            command.ExecuteNonQuery();
        }
        return token;
    }

    static OdbcConnection Connect()
    {
        var store = new Uri(Setting("STORE"));
        var database = new OdbcConnection("Driver={MariaDB Unicode};SERVER=" + store.Host + ";PORT=" + store.Port
            + ";DATABASE=" + store.AbsolutePath.Trim('/') + ";UID=" + store.UserInfo + ";PWD=site");
        database.Open();
        return database;
    }

    public static void Main()
    {
        var random = new Random();
        double pause_ms = 1000.0 / int.Parse(Setting("VIEWS_PER_S"));
        using (OdbcConnection database = Connect())
        {
            for (; ; Thread.Sleep((int)(pause_ms * (0.5 + random.NextDouble()))))
            {
                string token = Token(database);
                string errcode = token == "" ? "-1" : Errcode(token);
                string end = token == "" ? "-" : token.Substring(token.Length - 12);
                Console.WriteLine(DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() + " " + errcode + " " + end);
                Console.Out.Flush();
            }
        }
    }
}
