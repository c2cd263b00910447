"""What stands around places: «name» stands for one that is written so.

In two parts: rules were mended with the first before one's eyes, and weren't for the second.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOKED_AT", "UNSEEN"]

LOOKED_AT: Final = (
    "The tower stands at «pair», built in 1889; tickets are «price».",
    "Location: «compass» (accuracy «measure» m, fix at «time»).",
    '{"id": «digits8», "lat": «lat», "lon": «lon», "speed": «measure»}\n',
    "Le refuge se trouve à «dms», à «measure» km du parking.",
    "Mayday position «minutes», speed 12.500 knots, wind 21.125 knots.",
    "| Site | Position | Area |\n|---|---|---|\n| A | «pair» | «measure» |\n| B | «compass» | «measure» |\n",
    "Open https://www.google.com/maps/@«tight_pair»,17z or geo:«tight_pair» on your phone; app version «version».",
    '{"type": "Point", "coordinates": [«turned»]}\n',
    "Der Punkt liegt bei «compass_de», Höhe «price» m.",
    "Die Koordinaten sind «pair», das Paket wiegt «measure» kg.",
    "latitude = «lat»\nlongitude = «lon»\nzoom = 12.5\n",
    "Precision «score», recall «score», after «measure» s and «measure» s; version «version».",
    "The vector is [«score», «score», «score», «score»], its norm «measure».",
    "Add «measure» kg, «measure» kg and «price» €, turn it by 45.125° and wait until «time».",
    "«too_far», «too_far» is no place on Earth, and 5'11\" is how tall he is.",
    "You'll find the trailhead here: «pair» (about «measure» km from the road).",
    "GPS: «compass»\nAltitude: «price» m\nTaken: «iso_date» «time»\n",
    "El pecio está en «dms», a 32.500 m de profundidad; la entrada cuesta «price» €.",
    "site,lat,lon,depth\nA1,«tight_pair»,«measure»\n",
    '{"location": {"latitude": «lat», "longitude": «lon»}, "accuracy": «measure»}\n',
    "- Waypoint 1: «minutes»\n- Waypoint 2: «minutes»\n- Distance: «measure» nm\n",
    "INSERT INTO sites VALUES («digits6», ST_GeomFromText('POINT(«wkt»)'), «price»);\n",
    "Lat: «lat», Long: «lon» — see https://maps.example.com/?q=«tight_pair»&z=15 (build «version»)",
    "Le sommet est à «compass_fr», pour un dénivelé de «price» m.",
    "坐标：«pair»，海拔 «price» 米。",
    "他们在 «dms» 等你，票价 «price» 元。",
    "The losses were «score», «score» and «score»; p = «score», at a rate of «measure» ms.",
    "Latency «measure» ms (p50), «measure» ms (p99); scores: «score», «score».",
    "Versions «version» and «version», prices «price», «price»; heated to 180.125°, then to 90.500 °C.",
    "Size: «measure» x «measure» mm, weight «measure» g, order «order», total «price».",
    "Meet me at «pair»; it's a walk of «measure» km, and the bus costs «price».",
    "Last known position of the buoy: «compass», drifting 0.412 m/s since «time».",
    "| Name | Lat | Lon | Height |\n|---|---|---|---|\n| Base | «lat» | «lon» | «measure» |\n",
    '{"name": "depot", "lat": «lat», "lng": «lon», "radius": «measure»}\n',
    "La cueva se encuentra en las coordenadas «pair», a «measure» km del pueblo.",
    "Die Hütte steht auf «dms»; der Aufstieg dauert 2.500 Stunden und kostet «price» Euro.",
    "Anchored at «minutes» in 12.500 m of water, wind «measure» kn.",
    "**Coordinates:** «dms»  \n**Elevation:** «price» m  \n**Version:** «version»\n",
    "[Map](https://www.openstreetmap.org/?mlat=«lat»&mlon=«lon»#map=15) of order «order», [here](geo:«tight_pair»).",
    "集合地点在«compass»，距离«measure»公里。",
    "Position («pair»), heading 181.250, speed «measure», battery «version».",
    "Le bateau a coulé par «compass_fr» le «slash_date», avec «measure» t de fret.",
    "accuracy «score», loss «score» (best «score», «score»); epoch took «measure» s, «measure» s before.",
    "The box measures «measure», «measure» and «measure» cm; it costs «price» or «price», in version «version».",
    "Quaternion: [«score», «score», «score», «score»]; angles 12.125°, 45.500° and 90.250°.",
)

UNSEEN: Final = (
    "I dropped a pin at «pair». Parking is «price» an hour and «measure» km away.",
    "The wreck is charted at «compass», in «measure» m of water.",
    "depot: {lat: «lat», lon: «lon»}, van: {speed: «measure», odometer: «measure»}\n",
    "- Latitude: «lat»\n- Longitude: «lon»\n- Altitude: «measure»\n",
    "id;position;load\n7;«compass»;«measure»\n8;«compass»;«measure»\n",
    "Las coordenadas GPS son «dms»; el peaje cuesta «price» €.",
    "Rendez-vous au point «pair» à «time», le «slash_date».",
    "Unser Standort: «dms» (auf «measure» m genau).",
    "Turn at waypoint «minutes», then hold 3.250 knots for «measure» nm.",
    "See geo:«tight_pair» or https://maps.apple.com/?ll=«tight_pair»&t=m, version «version».",
    '{"geometry": {"type": "Point", "coordinates": [«turned»]}, "magnitude": «measure»}\n',
    "約束の場所は「«pair»」です。料金は«price»円。",
    "F1 «score», AUC «score»; (train, test) = («score», «score») after «measure» s.",
    "Doses: «measure» mg, «measure» mg, «measure» mg; price «price», batch «digits8».",
    "The lens is 35.125 mm at f/2.8, tilted by 12.250°, and costs «price»; firmware «version».",
)
